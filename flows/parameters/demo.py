"""The parameters of demo."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.parameters.base import FlowParameters


class DemoParameters(FlowParameters):
    """Where the demo's results go, and what it works on."""

    out: str = Field("pointloom-demo", description="Folder of everything the demo makes.")
    source: Literal["auto", "real", "simulated"] = Field(
        "auto",
        description="Real LiDAR from PyPI, a simulated survey, or the first with the second to fall back on.",
    )
    epochs: int | None = Field(
        None, ge=1, description="Fewer for a quick look; the demo's own number unless given."
    )

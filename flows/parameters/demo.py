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
        description="real: LiDAR from PyPI; simulated: a simulated survey; auto: real, or simulated where PyPI "
        "cannot be reached.",
    )
    epochs: int | None = Field(
        None,
        ge=1,
        description="Number of epochs: fewer for a quick look; without this option the demo's own number.",
    )

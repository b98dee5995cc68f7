"""The parameters of evaluate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from flows.parameters.base import FlowParameters
from pointcloud.formats.given_crs import CRS_HELP, UNITS_HELP, GivenCrs
from pointcloud.labels import PRESETS, find_scheme

if TYPE_CHECKING:
    from tasks.evaluating.evaluate import EvaluateJob


class EvaluateParameters(FlowParameters):
    """Labelled clouds, their truth, and where the report goes. Files are paired by name, whatever their formats."""

    labelled: list[str] = Field(description="Labelled LAS, LAZ, PLY or Parquet files, folders or globs.")
    truth: list[str] = Field(
        description="The same scans with their true classes, of any format that is read."
    )
    against: list[str] = Field(
        [],
        description="Another version of the labelled clouds to compare with, such as those of another checkpoint.",
    )
    out: str = Field(description="Folder or URI for report.html, scores.json, scores.md and scores.parquet.")
    label_scheme: str = Field(
        "asprs-basic", description=f"Which class codes mean what: {', '.join(PRESETS)}, or a JSON file."
    )
    delivered: list[str] = Field(
        [],
        description="The scans as delivered, for the picture before labelling; without them the truth is shown.",
    )
    checkpoint: str | None = Field(
        None, description="Checkpoint whose training curves are shown in the report."
    )
    crs: list[str] = Field([], description=CRS_HELP)
    units: list[str] = Field([], description=UNITS_HELP)
    title: str = Field("Labelled cloud against the truth", description="Headline of the report.")
    subtitle: str = Field("", description="Where the data come from.")
    facts: dict[str, str] = Field({}, description="Further figures for the report.")

    def job(self) -> EvaluateJob:
        """The job these parameters describe. Raises PointloomError where files do not pair up."""
        from tasks.evaluating.evaluate import EvaluateJob  # with plotly
        from tasks.evaluating.pairs import find_pairs

        pairs = find_pairs(self.labelled, self.truth, self.delivered, self.against)
        given = GivenCrs.parse(self.crs, self.units)
        given.check(pair.name for pair in pairs)
        return EvaluateJob(
            pairs=pairs,
            out=self.out,
            label_scheme=find_scheme(self.label_scheme),
            checkpoint=self.checkpoint,
            title=self.title,
            subtitle=self.subtitle,
            facts=self.facts,
            given=given,
        )

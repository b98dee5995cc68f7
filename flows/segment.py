"""Scans to labelled clouds."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from prefect import flow
from pydantic import BaseModel, Field

from flows.running import run
from tasks.quarantine import check_quarantine
from tasks.segment import SegmentJob, find_scans, plan_segmenting, segment_scans
from tasks.watching import show_records


class SegmentParameters(BaseModel):
    """Which scans, which checkpoint, and where the labelled clouds go."""

    scans: list[str] = Field(
        description="LAS/LAZ files, folders or globs; local paths or s3://, gs://, abfs:// URIs."
    )
    checkpoint: str = Field(description="Folder or URI of a checkpoint.")
    out: str = Field(description="Folder or URI of the labelled clouds, which keep the names of their scans.")
    overlap: int | None = Field(
        None, ge=1, description="Shifted grids whose logits are averaged; as in training unless given."
    )
    num_actors: int = Field(1, ge=1, description="Ray actors, each with the network and one scan at a time.")
    cpus_per_actor: int = Field(0, ge=0, description="CPUs of each; 0 shares out what this machine has.")
    max_quarantined: int = Field(
        0, ge=0, description="The flow fails when more scans than this are unreadable."
    )

    def job(self) -> SegmentJob:
        """The job these parameters describe. Raises PointloomError for a checkpoint that cannot be used."""
        return plan_segmenting(self.checkpoint, self.out, self.num_actors, self.cpus_per_actor, self.overlap)


def check(parameters: SegmentParameters) -> None:
    """What can be told before work starts. Raises PointloomError."""
    parameters.job()
    find_scans(parameters.scans, parameters.out)


@flow(name="segment")
def segment(parameters: SegmentParameters) -> list[str]:
    """Label every point of every scan and write copies that differ in classification and confidence alone.

    Scans already labelled by this checkpoint are kept. Returns the URIs of the labelled clouds.
    """
    sources = find_scans(parameters.scans, parameters.out)
    records = segment_scans(sources, parameters.job())
    show_records(f"labelled-{parameters.out}", records, f"Labelled clouds in {parameters.out}")
    check_quarantine(records, parameters.max_quarantined)
    return [record.output for record in records if record.output]


def command(*, parameters: Annotated[SegmentParameters, Parameter(name="*")]) -> None:
    """Label scans with a checkpoint; the copies differ in classification and confidence alone."""
    for uri in run(check, segment, parameters):
        print(f"labelled cloud: {uri}")

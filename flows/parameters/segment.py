"""The parameters of segment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from flows.parameters.base import FlowParameters
from pointcloud.formats.given_crs import CRS_HELP, UNITS_HELP, GivenCrs
from pointcloud.labelling.options import LabelOptions, parse_codes
from pointcloud.storage.contents import VERIFY_CONTENT_HELP

if TYPE_CHECKING:
    from tasks.segmenting.job import SegmentJob


class SegmentParameters(FlowParameters):
    """Which scans, which checkpoint, and where the labelled clouds go."""

    scans: list[str] = Field(
        description="Scans (LAS, LAZ, COPC, PLY, NPZ, NPY, E57), folders, globs or S3DIS rooms; paths or s3://, gs://, "
        "abfs:// URIs."
    )
    checkpoint: str = Field(description="Folder or URI of a checkpoint.")
    out: str = Field(description="Folder or URI of the labelled clouds, which keep the names of their scans.")
    overlap: int | None = Field(
        None, ge=1, description="Shifted grids whose logits are averaged; as in training unless given."
    )
    rotations: int = Field(
        1,
        ge=1,
        description="Turns of each block about the vertical whose logits are averaged; costs as often.",
    )
    smoothing: int = Field(
        0,
        ge=0,
        description="Nearest points, itself among them, whose logits are averaged for each point's; 0: none.",
    )
    min_confidence: float = Field(0, ge=0, le=1, description="Points below it become unclassified (code 1).")
    preserve: list[int] = Field([], description="Class codes of the scans that never change.")
    only_unclassified: bool = Field(False, description="Change only points whose code is 0 or 1.")
    keep_original: bool = Field(
        False, description="Keep the delivered classes as extra dimension original_classification."
    )
    entropy: bool = Field(
        False, description="Write the entropy of the probabilities, 0 to 1, as extra dimension."
    )
    probabilities: bool = Field(
        False, description="Write the probability of each class as extra dimension, p_ and its name."
    )
    codes: list[str] = Field(
        [],
        description="name=code, as vegetation=4,water=9: class codes to write instead of the checkpoint's.",
    )
    format: Literal["same", "las", "laz", "ply", "parquet"] = Field(
        "same",
        description="Of the labelled clouds: the scan's (PLY where that is neither LAS nor PLY), the other LAS, or all "
        "points with all dimensions and the CRS.",
    )
    upgrade_format: bool = Field(
        False,
        description="Where a class code above 31 needs it, point formats 0 to 5 become 6 to 10, in LAS 1.4.",
    )
    noise: Literal["exclude", "use"] | None = Field(
        None,
        description="exclude: points marked as noise (classes 7 and 18) or as withheld, and isolated ones far below or "
        "above all others, are no context for others and keep their class; use: they are labelled like any other; as "
        "in training unless given.",
    )
    noise_code: int | None = Field(
        None, ge=0, le=31, description="Class code written for isolated points that were found, as 7."
    )
    num_actors: int = Field(1, ge=1, description="Ray actors, each with the network and one scan at a time.")
    cpus_per_actor: int = Field(0, ge=0, description="CPUs of each; 0 shares out what this machine has.")
    gpu: bool = Field(
        False,
        description="Each actor has a GPU of its own; without it several actors use none, a single one any there is.",
    )
    memory_mb: int = Field(
        3000, ge=500, description="A scan whose decoding needs more memory than this is quarantined."
    )
    time_limit_s: float = Field(
        3600, gt=0, description="A scan whose decoding takes longer than this is quarantined."
    )
    drift: Literal["warn", "quarantine"] = Field(
        "warn",
        description="What becomes of a scan unlike the training: in density, height, intensity, returns, colours.",
    )
    retry_quarantined: bool = Field(True, description="Try again what could not be read, though unchanged.")
    crs: list[str] = Field([], description=CRS_HELP)
    units: list[str] = Field([], description=UNITS_HELP)
    verify_content: bool = Field(False, description=VERIFY_CONTENT_HELP)
    only: list[str] = Field(
        [],
        description="Names or globs of those of the scans to work on, quarantined ones too; the others stay, as "
        "neighbours and in the report.",
    )
    max_quarantined: int = Field(
        0, ge=0, description="The flow fails when more scans than this are unreadable."
    )
    review_below: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Tiles with a smaller mean confidence, and places where points with a smaller one lie close "
        "together, are polygons in review/review.gpkg.",
    )
    price_per_hour: float = Field(
        0, ge=0, description="Of all machines together, for the report's cost per km²; 0: not known."
    )
    wait_s: float = Field(
        0, ge=0, description="How long to wait for another run that writes into this folder."
    )
    cluster_wait_s: float = Field(
        120, ge=0, description="Seconds a Ray cluster may take until it has room for an actor."
    )
    dry_run: bool = Field(
        False,
        description="Only say what would be done, and how long it would take: where this checkpoint and these "
        "settings have labelled nothing yet, by labelling a sample for some 20 s.",
    )

    def job(self) -> SegmentJob:
        """The job these parameters describe. Raises PointloomError for a checkpoint or options that cannot be used."""
        from tasks.segmenting.segment import plan_segmenting  # with torch and Ray

        options = LabelOptions(
            overlap=self.overlap,
            rotations=self.rotations,
            smoothing=self.smoothing,
            min_confidence=self.min_confidence,
            preserve=tuple(sorted(set(self.preserve))),
            only_unclassified=self.only_unclassified,
            keep_original=self.keep_original,
            entropy=self.entropy,
            probabilities=self.probabilities,
            codes=parse_codes(self.codes),
            format=self.format,
            upgrade=self.upgrade_format,
            noise=self.noise,
            noise_code=self.noise_code,
        )
        return plan_segmenting(
            checkpoint=self.checkpoint,
            out=self.out,
            options=options,
            num_actors=self.num_actors,
            cpus_per_actor=self.cpus_per_actor,
            memory_mb=self.memory_mb,
            time_limit_s=self.time_limit_s,
            quarantine_drift=self.drift == "quarantine",
            gpu=self.gpu,
            wait_s=self.cluster_wait_s,
            given=GivenCrs.parse(self.crs, self.units),
        )

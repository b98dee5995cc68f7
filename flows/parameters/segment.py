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
        None,
        ge=1,
        description="2 adds grids shifted by half a tile: the logits of four views of each place are averaged; as in "
        "training unless given.",
    )
    rotations: int = Field(
        1,
        ge=1,
        description="Each block is labelled at this many angles about the vertical, and the logits are averaged; the "
        "time grows by the same factor.",
    )
    smoothing: int = Field(
        0,
        ge=0,
        description="Each point gets the mean logits of this many nearest points, itself included; 0: no smoothing.",
    )
    min_confidence: float = Field(
        0, ge=0, le=1, description="Points with a smaller confidence become unclassified (code 1)."
    )
    preserve: list[int] = Field([], description="Class codes of the scans that never change.")
    only_unclassified: bool = Field(False, description="Change only points whose code is 0 or 1.")
    keep_original: bool = Field(
        False, description="Keep the delivered classes as extra dimension original_classification."
    )
    entropy: bool = Field(
        False, description="Write the entropy of the probabilities, 0 to 1, as extra dimension."
    )
    probabilities: bool = Field(
        False, description="Write the probability of each class as extra dimension, named p_ and the class."
    )
    codes: list[str] = Field(
        [],
        description="Class codes to write instead of the checkpoint's, as vegetation=4,water=9.",
    )
    format: Literal["same", "las", "laz", "ply", "parquet"] = Field(
        "same",
        description="Format of the labelled clouds. same: that of the scan, or PLY where the scan is neither LAS, "
        "LAZ nor PLY. las, laz: only for scans that are LAS or LAZ. ply, parquet: all points with all dimensions and "
        "the CRS.",
    )
    upgrade_format: bool = Field(
        False,
        description="Where a class code is above 31, write point formats 0 to 5 as 6 to 10, in LAS 1.4.",
    )
    noise: Literal["exclude", "use"] | None = Field(
        None,
        description="exclude: points marked as noise (classes 7 and 18) or as withheld, and isolated ones far below or "
        "above all others, are no context for others and keep their class; use: they are labelled like any other; as "
        "in training unless given.",
    )
    noise_code: int | None = Field(
        None,
        ge=0,
        le=31,
        description="Class code to write for the isolated points that were found, such as 7.",
    )
    num_actors: int = Field(
        1,
        ge=1,
        description="Ray actors. Each holds the network and works on two scans at once: one is in the network while "
        "the other is read or written.",
    )
    cpus_per_actor: int = Field(
        0, ge=0, description="CPUs of each actor; 0: the CPUs of this machine are shared out."
    )
    gpu: bool = Field(
        False,
        description="Give each actor a GPU of its own. Without this option a single actor uses a GPU where there is "
        "one, and several actors use none.",
    )
    memory_mb: int = Field(
        3000, ge=500, description="A scan whose decoding needs more memory than this is quarantined."
    )
    time_limit_s: float = Field(
        3600, gt=0, description="A scan whose decoding takes longer than this is quarantined."
    )
    drift: Literal["warn", "quarantine"] = Field(
        "warn",
        description="What to do with a scan unlike the training in density, height, intensity, returns or colours: "
        "label it and warn, or set it aside.",
    )
    retry_quarantined: bool = Field(True, description="Try quarantined scans again, also unchanged ones.")
    crs: list[str] = Field([], description=CRS_HELP)
    units: list[str] = Field([], description=UNITS_HELP)
    verify_content: bool = Field(False, description=VERIFY_CONTENT_HELP)
    only: list[str] = Field(
        [],
        description="Names or globs of the scans to work on, quarantined ones too. The other scans stay in the "
        "report and give context to their neighbours.",
    )
    max_quarantined: int = Field(
        0, ge=0, description="The flow fails when more scans than this are quarantined."
    )
    review_below: float = Field(
        0.6,
        ge=0,
        le=1,
        description="Tiles with a smaller mean confidence, and places where points with a smaller confidence lie close "
        "together, become polygons in review/review.gpkg.",
    )
    price_per_hour: float = Field(
        0,
        ge=0,
        description="Price of all machines together, for the cost per km² in the report; 0: not known.",
    )
    wait_s: float = Field(
        0, ge=0, description="How long to wait for another run that writes into this folder."
    )
    cluster_wait_s: float = Field(
        120, ge=0, description="Seconds a Ray cluster may take until it has room for an actor."
    )
    dry_run: bool = Field(
        False,
        description="Only say what would be done and how long it would take. Where this checkpoint with these settings "
        "has labelled nothing yet, a sample is labelled for some 20 s.",
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

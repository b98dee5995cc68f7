"""Scans to a blocks dataset."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from prefect import flow
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ProcessPoolTaskRunner
from pydantic import BaseModel, Field

from flows.running import run
from pointcloud.blocks import BlockConfig
from pointcloud.labels import PRESETS, find_scheme
from pointcloud.splits import SplitRule
from tasks.preprocess import PreprocessJob, find_scans, preprocess_scan, write_manifest
from tasks.quarantine import check_quarantine
from tasks.watching import Progress, show_records


class PreprocessParameters(BaseModel):
    """What becomes a blocks dataset, and how it is cut. Sizes are metres, also for scans in feet."""

    scans: list[str] = Field(
        description="LAS/LAZ files, folders, globs or S3DIS room folders; local paths or s3://, gs://, abfs:// URIs."
    )
    out: str = Field(description="Folder or URI of the blocks dataset.")
    label_scheme: str = Field(
        "asprs-basic", description=f"Which class codes mean what: {', '.join(PRESETS)}, or a JSON file."
    )
    tile_size_m: float = Field(BlockConfig.tile_size_m, description="Edge of a tile.")
    halo_m: float = Field(BlockConfig.halo_m, description="Width of the context around a tile.")
    voxel_size_m: float = Field(
        BlockConfig.voxel_size_m, description="One point is kept per voxel of this edge."
    )
    thin: bool = Field(BlockConfig.thin, description="Keep one point per voxel; off keeps all, as for rooms.")
    overlap: int = Field(BlockConfig.overlap, description="2 adds grids shifted by half a tile: four views.")
    ground_window_m: float = Field(
        BlockConfig.ground_window_m, description="Heights count from the lowest point within this window."
    )
    max_points: int = Field(
        BlockConfig.max_points, description="A tile with more points is cut into quarters."
    )
    val_fraction: float = Field(
        SplitRule.val_fraction, description="Share of each scan, one strip of ground, kept for validation."
    )
    val_scans: list[str] = Field(
        [], description="Globs of scan names that are validation as a whole, instead of strips."
    )
    processes: int = Field(2, ge=1, description="Scans read at the same time, each in a process of its own.")
    max_quarantined: int = Field(
        0, ge=0, description="The flow fails when more scans than this are unreadable."
    )

    def job(self) -> PreprocessJob:
        """The job these parameters describe. Raises PointloomError where they do not fit together."""
        config = BlockConfig(
            self.tile_size_m, self.halo_m, self.voxel_size_m, self.thin, self.overlap, self.ground_window_m,
            self.max_points,
        )  # fmt: skip
        rule = SplitRule(self.val_fraction, tuple(self.val_scans))
        return PreprocessJob(self.out, config, find_scheme(self.label_scheme), rule)


def check(parameters: PreprocessParameters) -> None:
    """What can be told before work starts. Raises PointloomError."""
    parameters.job()
    find_scans(parameters.scans)


@flow(name="preprocess")
def preprocess(parameters: PreprocessParameters) -> str:
    """Cut scans into blocks and store them with a manifest; only new and changed scans are read.

    Returns the URI of the dataset.
    """
    job = parameters.job()
    sources = find_scans(parameters.scans)
    progress = Progress(f"preprocessing-{parameters.out}", f"Scans cut into {parameters.out}", len(sources))
    with ProcessPoolTaskRunner(max_workers=min(parameters.processes, len(sources))) as processes:
        futures: list[PrefectFuture[Any]] = [
            processes.submit(preprocess_scan, {"source": source, "job": job}) for source in sources
        ]
        for _ in as_completed(futures):
            progress.step()
        records = [future.result() for future in futures]
    write_manifest(records, job)
    show_records(f"scans-{parameters.out}", records, f"Scans of {parameters.out}")
    check_quarantine(records, parameters.max_quarantined)
    return parameters.out


def command(*, parameters: Annotated[PreprocessParameters, Parameter(name="*")]) -> None:
    """Cut scans into blocks: one Parquet shard per scan, and a manifest."""
    print(f"blocks dataset: {run(check, preprocess, parameters)}")

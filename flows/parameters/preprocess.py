"""The parameters of preprocess."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from flows.parameters.base import FlowParameters
from pointcloud.blocks.features import FEATURES, check_features
from pointcloud.dataset.splits import SplitRule
from pointcloud.errors import PointloomError
from pointcloud.formats.given_crs import CRS_HELP, UNITS_HELP, GivenCrs
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import PRESETS, find_scheme
from pointcloud.storage.contents import VERIFY_CONTENT_HELP

if TYPE_CHECKING:
    from pointcloud.dataset.preprocessing import PreprocessConfig


class PreprocessParameters(FlowParameters):
    """What becomes a blocks dataset, and how it is cut. Sizes are metres, also for scans in feet."""

    scans: list[str] = Field(
        description="Scans (LAS, LAZ, COPC, PLY, NPZ, NPY, E57), folders, globs or S3DIS rooms; paths or s3://, gs://, "
        "abfs:// URIs."
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
    thin: bool = Field(
        BlockConfig.thin, description="Keep one point per voxel; off keeps all points, as is usual for rooms."
    )
    overlap: int = Field(BlockConfig.overlap, description="2 adds grids shifted by half a tile: four views.")
    ground_window_m: float = Field(
        BlockConfig.ground_window_m, description="Heights count from the lowest point within this window."
    )
    max_points: int = Field(
        BlockConfig.max_points, description="A tile with more points is cut into quarters."
    )
    across_scans: bool = Field(
        BlockConfig.across_scans,
        description="Tiles and halos also take points of neighbouring scans; off for scans of different times.",
    )
    noise: Literal["exclude", "use"] = Field(
        "exclude",
        description="exclude: points marked as noise (classes 7 and 18) or as withheld, and isolated ones far below or "
        "above all others, are in no block; use: they are points like any other.",
    )
    features: list[str] = Field(
        [],
        description=f"Features that every scan must give; scans that cannot are quarantined: {', '.join(FEATURES)}.",
    )
    sample_points: int = Field(
        0,
        ge=0,
        description="Draw every block to exactly this many points, as the paper does with 4096; 0: all.",
    )
    min_points: int = Field(
        1, ge=1, description="Tiles with fewer points are left out; the paper's rooms: 100."
    )
    window: tuple[float, float, float, float] | None = Field(
        None,
        description="Read only this ground: x_min y_min x_max y_max in CRS units. Of COPC nothing else is decoded.",
    )
    crs: list[str] = Field([], description=CRS_HELP)
    units: list[str] = Field([], description=UNITS_HELP)
    val_fraction: float = Field(
        SplitRule.val_fraction, description="Share of the ground kept for validation."
    )
    val_scans: list[str] = Field(
        [],
        description="Globs of the names of scans that validate as a whole, instead of a share of each scan.",
    )
    test_fraction: float = Field(
        SplitRule.test_fraction, description="Share of the ground kept for the test."
    )
    test_scans: list[str] = Field(
        [], description="Globs of the names of scans that test as a whole, such as 'Area_5/*'."
    )
    area_size_m: float = Field(
        SplitRule.area_size_m, description="Hold out squares of this edge; 0: a strip of each scan."
    )
    num_folds: int = Field(
        SplitRule.num_folds, description="Number of parts of the ground, for cross-validation by squares."
    )
    fold: int = Field(SplitRule.fold, description="Which of these parts is the test, counted from 0.")
    seed: int = Field(SplitRule.seed, description="Seed that decides which squares are held out.")
    processes: int = Field(2, ge=1, description="Scans read at the same time, each in a process of its own.")
    memory_mb: int = Field(
        3000, ge=500, description="A scan that needs more memory than this is quarantined."
    )
    time_limit_s: float = Field(3600, gt=0, description="A scan that takes longer than this is quarantined.")
    retry_quarantined: bool = Field(True, description="Try quarantined scans again, also unchanged ones.")
    verify_content: bool = Field(False, description=VERIFY_CONTENT_HELP)
    max_quarantined: int = Field(
        0, ge=0, description="The flow fails when more scans than this are quarantined."
    )
    wait_s: float = Field(0, ge=0, description="How long to wait for another run that writes this dataset.")
    dry_run: bool = Field(False, description="Only say what would be done.")

    def given_crs(self) -> GivenCrs:
        """The CRSs and units in place of what the scans say. Raises PointloomError for what is not known."""
        return GivenCrs.parse(self.crs, self.units)

    def config(self) -> PreprocessConfig:
        """How each scan is made into blocks. Raises PointloomError where the parameters do not fit together."""
        from pointcloud.dataset.preprocessing import PreprocessConfig  # with the readers of all formats

        block_config = BlockConfig(
            tile_size_m=self.tile_size_m,
            halo_m=self.halo_m,
            voxel_size_m=self.voxel_size_m,
            thin=self.thin,
            overlap=self.overlap,
            ground_window_m=self.ground_window_m,
            max_points=self.max_points,
            across_scans=self.across_scans,
            noise=self.noise,
        )
        rule = SplitRule(
            val_fraction=self.val_fraction,
            val_scans=tuple(self.val_scans),
            test_fraction=self.test_fraction,
            test_scans=tuple(self.test_scans),
            area_size_m=self.area_size_m,
            num_folds=self.num_folds,
            fold=self.fold,
            seed=self.seed,
        )
        if self.features:
            check_features(tuple(self.features))
        if self.window is not None and not (
            self.window[0] < self.window[2] and self.window[1] < self.window[3]
        ):
            raise PointloomError(f"window {self.window} is empty; expected x_min y_min x_max y_max.")
        return PreprocessConfig(
            block_config=block_config,
            scheme=find_scheme(self.label_scheme),
            rule=rule,
            required=tuple(self.features),
            sample_points=self.sample_points,
            min_points=self.min_points,
            window=self.window,
        )

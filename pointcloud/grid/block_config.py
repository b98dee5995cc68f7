"""The sizes that scans are cut in."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from pointcloud.errors import PointloomError, SchemaError

NOISE_CHOICES = ("exclude", "use")


@dataclass(frozen=True, kw_only=True)
class BlockConfig:
    """How scans are cut. All sizes are metres, also for a scan in feet.

    Attributes:
        tile_size_m: edge of a tile, a multiple of the voxel size.
        halo_m: width of the context around a tile; at most one tile.
        voxel_size_m: one point is kept per voxel; with `thin` off it only rounds the tile size.
        thin: keep one point per voxel (surveys), or every point (rooms).
        overlap: grids shifted by tile_size / overlap along x and y; 2 gives four views of every place.
        ground_window_m: a point's height counts from the lowest point within about this window around it.
        max_points: a tile with more points than this, halo included, is cut into quarters.
        across_scans: tiles and halos go on in the neighbouring scans of the same CRS; off where scans are of
            different times, or each in coordinates of its own.
        noise: "exclude" leaves out points that the scan marks as noise or as withheld, and isolated ones far below or
            above all others; "use" takes them like any other point.

    Raises:
        PointloomError: sizes that do not fit together.
    """

    tile_size_m: float = 16.0
    halo_m: float = 2.0
    voxel_size_m: float = 0.25
    thin: bool = True
    overlap: int = 1
    ground_window_m: float = 30.0
    max_points: int = 12288
    across_scans: bool = True
    noise: str = "exclude"

    def __post_init__(self) -> None:
        sizes = (self.tile_size_m, self.voxel_size_m, self.ground_window_m)
        if not all(0 < size < math.inf for size in sizes) or not 0 <= self.halo_m <= self.tile_size_m:
            raise PointloomError(
                f"tile {self.tile_size_m} m, voxel {self.voxel_size_m} m and halo {self.halo_m} m do not fit: sizes "
                "must be positive and the halo at most one tile."
            )
        counts = (self.overlap, self.max_points)
        if not all(isinstance(count, int) for count in counts) or self.overlap < 1 or self.max_points < 64:
            raise PointloomError(
                "overlap must be a whole number of 1 or more and max_points one of 64 or more."
            )
        if self.noise not in NOISE_CHOICES:
            raise PointloomError(f"noise {self.noise!r} is not known; expected {' or '.join(NOISE_CHOICES)}.")
        if not self._divides_into_voxels():
            raise PointloomError(
                f"tile_size_m / overlap = {self.tile_size_m} / {self.overlap} must be a multiple of voxel_size_m = "
                f"{self.voxel_size_m}, so that a voxel lies in one tile only; change one of them."
            )

    def _divides_into_voxels(self) -> bool:
        try:
            per_step = self.tile_size_m / self.voxel_size_m / self.overlap
            return round(per_step) >= 1 and abs(per_step - round(per_step)) <= 1e-6 * per_step
        except OverflowError:  # of numbers that are finite, the quotient may not be
            return False

    @property
    def voxels_per_tile(self) -> int:
        """Voxels along the side of a tile."""
        return round(self.tile_size_m / self.voxel_size_m)

    @property
    def excludes_noise(self) -> bool:
        """Whether `noise` is "exclude"."""
        return self.noise == "exclude"

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return asdict(self)

    @staticmethod
    def from_dict(record: dict[str, Any]) -> BlockConfig:
        """Read what `to_dict` has made.

        Raises:
            SchemaError: it is no such record.
        """
        try:
            return BlockConfig(**record)
        except TypeError as error:
            raise SchemaError(f"not a block config ({error}).") from error

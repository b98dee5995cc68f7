"""Blocks: what the network sees, the points of a tile and its halo, and the sizes that they are cut in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from pointcloud.grid.kernels import class_counts


@dataclass(frozen=True)
class Block:
    """N points, those of the core before those of the halo, each in no particular order.

    Attributes:
        scan: name of the scan.
        tile: (i, j) of the tile on the grid of the CRS.
        shift: (a, b), which of the overlap² grids, in steps of tile_size / overlap.
        cell: (x_min, y_min, x_max, y_max) float, half-open footprint of the core in CRS units.
        origin: (3,) float64, CRS units; `position` counts from here.
        position: (N, 3) float32, metres from the origin.
        height: (N,) float32, metres above the lowest point of the scan nearby.
        attributes: name -> (N,) as in the cloud (classification left out).
        label: (N,) int8 as `LabelScheme.to_labels` gives them; None where the scan has no labels.
        is_core: (N,) bool, False in the halo.
        point_index: (N,) int64, each point's place in the scan.
        voxel: (N,) int64, each point's voxel in the `Voxels` the block was cut from; not stored.
        extent: (2, 3) float64, smallest and largest corner of the whole scan, metres from the origin as
            `position` is; None where unknown.
        scans: names of the scans that points come from, where a tile or halo crosses from one into another.
        source: (N,) uint16, each point's scan among `scans`; None where all are of `scan`.
    """

    scan: str
    tile: tuple[int, int]
    shift: tuple[int, int]
    cell: tuple[float, float, float, float]
    origin: np.ndarray
    position: np.ndarray
    height: np.ndarray
    attributes: dict[str, np.ndarray]
    label: np.ndarray | None
    is_core: np.ndarray
    point_index: np.ndarray
    voxel: np.ndarray | None = None
    extent: np.ndarray | None = None
    scans: tuple[str, ...] = ()
    source: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.position)

    @cached_property
    def core_counts(self) -> np.ndarray:
        """(K,) int64, labelled core points by class, up to the last class that there is; (0,) without labels."""
        if self.label is None:
            return np.empty(0, np.int64)
        return class_counts(self.label[: np.count_nonzero(self.is_core)])

    def __getitem__(self, rows: np.ndarray) -> Block:
        """The points chosen, in the order given, also several times."""

        def of(values: np.ndarray | None) -> np.ndarray | None:
            return None if values is None else values[rows]

        return replace(
            self,
            position=self.position[rows],
            height=self.height[rows],
            attributes={name: values[rows] for name, values in self.attributes.items()},
            label=of(self.label),
            is_core=self.is_core[rows],
            point_index=self.point_index[rows],
            voxel=of(self.voxel),
            source=of(self.source),
        )

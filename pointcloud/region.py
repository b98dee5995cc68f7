"""The points that a region's tiles need, read from the parts of a scan and its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pointcloud.blocks import BlockConfig
from pointcloud.columns import COLOURS
from pointcloud.grid import Grid
from pointcloud.height import height_above
from pointcloud.labels import IGNORE, LabelScheme
from pointcloud.parts import Part
from pointcloud.tiles import ThinnedPoints
from pointcloud.voxels import group, nearest_to_centre, occupied_cells, voxel_key


@dataclass(frozen=True)
class Region:
    """Points read for a region (n of them) and what is left of them after thinning (V).

    Attributes:
        thinned: one point per voxel, or all.
        own_index: (m,) int64, places in the scan of its own points whose home the region is.
        own_voxel: (m,) int64, the thinned point that stands for each of them.
    """

    thinned: ThinnedPoints
    own_index: np.ndarray
    own_voxel: np.ndarray


def read_region(
    region: tuple[int, int], parts: Sequence[Part], scan: str, config: BlockConfig, scheme: LabelScheme | None
) -> Region:
    """The points of a region and around it.

    Args:
        region: place on the grid.
        parts: of the scan and its neighbours, by name: whoever reads a place takes the same points there.
        scan: whose tiles are to be cut.
        scheme: of the labels, None for none.
    """
    own = next(n for n, part in enumerate(parts) if part.scan == scan)
    grid = Grid.of(config, parts[own].crs)
    tables = [(n, table) for n, part in enumerate(parts) for table in _read(part, region)]
    xyz = np.array([np.concatenate([table[axis] for _, table in tables]) for axis in "xyz"]).T
    source = np.concatenate([np.full(len(table["x"]), n, np.uint16) for n, table in tables])
    index = np.concatenate([table["point_index"] for _, table in tables])
    scaled = xyz / np.array(grid.voxel_size)[[0, 0, 1]]
    voxel = np.floor(scaled).astype(np.int64)
    order, starts = group(voxel_key(voxel))
    if config.thin:
        kept = nearest_to_centre(order, starts, scaled, voxel, xyz)
        row = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
    else:
        kept, row = order, np.arange(len(order))
    stands_for = np.empty(len(order), np.int64)
    stands_for[order] = row
    is_home = np.flatnonzero(
        (source == own)
        & (voxel[:, 0] // grid.region_voxels == region[0])
        & (voxel[:, 1] // grid.region_voxels == region[1])
    )
    present = [parts[n] for n in np.unique(source)]
    names = set.intersection(*(set(part.attributes) - {"classification"} for part in present))
    attributes = {
        name: _scaled(np.concatenate([table[name] for _, table in tables])[kept], name, source[kept], parts)
        for name in sorted(names)
    }
    label = None
    if scheme is not None and any("classification" in part.attributes for part in present):
        label = np.concatenate([_labels(table, scheme) for _, table in tables])[kept]
    xyz = np.array([column[kept] for column in xyz.T]).T
    ground = occupied_cells(
        np.concatenate([part.ground_cells for part in parts]),
        np.concatenate([part.ground_lowest for part in parts]),
        np.minimum,
    )
    thinned = ThinnedPoints(
        scan=scan,
        xyz=xyz,
        height=height_above(xyz, 3 * grid.ground_size, *ground),
        attributes=attributes,
        label=label,
        voxel=np.array([column[kept] for column in voxel.T]).T,
        point_index=index[kept],
        extent=parts[own].extent,
        crs=parts[own].crs,
        scans=tuple(part.scan for part in parts),
        source=source[kept] if len(parts) > 1 else None,
    )
    return Region(thinned, index[is_home], stands_for[is_home])


def _read(part: Part, region: tuple[int, int]) -> Iterator[dict[str, np.ndarray]]:
    numbers = part.batches_of(region)
    if not numbers:
        return
    with pa.OSFile(str(part.path)) as file:
        reader = pa.ipc.open_file(file)
        for number in numbers:
            batch = reader.get_batch(number)
            yield {name: batch.column(name).to_numpy() for name in batch.schema.names}


def _labels(table: dict[str, np.ndarray], scheme: LabelScheme) -> np.ndarray:
    if "classification" not in table:
        return np.full(len(table["x"]), IGNORE, np.int8)
    return scheme.to_indices(table["classification"])


def _scaled(values: np.ndarray, name: str, source: np.ndarray, parts: Sequence[Part]) -> np.ndarray:
    """Colours of 8 bits as 16, scan by scan."""
    if name in COLOURS:
        factor = np.array([part.colour_scale or 1 for part in parts], np.uint16)
        values = values * factor[source]
    return values

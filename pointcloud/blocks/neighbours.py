"""Which scans lie side by side, as their headers tell it, and in which order they are best read."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pointcloud.cloud import ScanHeader
from pointcloud.errors import ScanError
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid


def find_neighbours(headers: Mapping[str, ScanHeader], config: BlockConfig) -> dict[str, list[str]]:
    """Scan -> the scans in the same CRS that may have points in its tiles or around them, sorted.

    Scans whose headers tell no bounds (rooms) have none: they are cut each for itself.

    Args:
        headers: of the scans that can be read, by name.
    """
    found: dict[str, list[str]] = {scan: [] for scan in headers}
    if not config.across_scans:
        return found
    boxes: dict[str, dict[str, np.ndarray]] = {}
    for scan, header in headers.items():
        if header.bounds is not None and np.isfinite(header.bounds).all():
            boxes.setdefault(_survey(header), {})[scan] = header.bounds[:, :2]
    for survey in boxes.values():
        names = sorted(survey)
        low = np.array([survey[name][0] for name in names])
        high = np.array([survey[name][1] for name in names])
        try:
            grid = Grid.of(config, headers[names[0]].crs)
        except ScanError:  # in degrees, as each of them will say when it is read
            continue
        # A shared tile is as wide as a tile, and its halo reaches into the next one.
        reach = 2 * grid.tile_cells * grid.cell_voxels * grid.voxel_size[0]
        for n, name in enumerate(names):
            near = ((low <= high[n] + reach) & (high >= low[n] - reach)).all(axis=1)
            found[name] = [names[other] for other in np.flatnonzero(near) if other != n]
    return found


def reading_order(headers: Mapping[str, ScanHeader]) -> list[str]:
    """Scans so that neighbours come soon after each other: by rows of the ground, those without bounds last."""

    def place(scan: str) -> tuple[str, float, float, str]:
        bounds = headers[scan].bounds
        if bounds is None or not np.isfinite(bounds).all():
            return "~", 0.0, 0.0, scan
        return _survey(headers[scan]), *bounds[0, :2].tolist(), scan

    return sorted(headers, key=place)


def _survey(header: ScanHeader) -> str:
    return header.crs.to_wkt() if header.crs is not None else ""

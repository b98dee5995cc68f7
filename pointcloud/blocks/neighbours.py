"""Which scans lie side by side, by their headers, and in which order they are best read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from pointcloud.blocks.common_crs import find_common
from pointcloud.cloud import ScanHeader
from pointcloud.errors import ScanError
from pointcloud.grid.block_config import BlockConfig


def find_neighbours(headers: Mapping[str, ScanHeader], config: BlockConfig) -> dict[str, list[str]]:
    """Scan -> the scans in the same CRS that may have points in its tiles or around them, sorted.

    Scans whose headers hold no bounds (rooms) have no neighbours: each is cut alone.

    Args:
        headers: of the scans that can be read, by name.
    """
    found: dict[str, list[str]] = {scan: [] for scan in headers}
    if not config.across_scans:
        return found
    for common in find_common(headers):
        boxes = {s: bounds for s in common.scans if (bounds := _ground(headers[s])) is not None}
        names = list(boxes)
        if not names:
            continue
        low, high = np.array([boxes[name][0] for name in names]), np.array([boxes[name][1] for name in names])
        try:
            reach = common.reach(config)
        except ScanError:  # in degrees; each of these scans is refused when it is read
            continue
        for n, near in enumerate(_near(low, high, reach)):
            found[names[n]] = [names[other] for other in near if other != n]
    return found


def _near(low: np.ndarray, high: np.ndarray, reach: float) -> Iterator[np.ndarray]:
    """Of each of N boxes those within reach of it, itself among them, as sorted indices.

    Only boxes that begin at about its x are compared with a box: of ten thousand scans some hundred.

    Args:
        low, high: (N, 2), smallest and largest x and y.
        reach: in the same units.
    """
    by_x = np.argsort(low[:, 0], kind="stable")
    begins = low[by_x, 0]
    widest = 1.001 * max(0.0, float((high - low)[:, 0].max()))  # a little more, for rounding
    firsts = np.searchsorted(begins, low[:, 0] - reach - widest, "left")
    lasts = np.searchsorted(begins, high[:, 0] + reach, "right")
    for n, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        among = by_x[first:last]
        near = ((low[among] <= high[n] + reach) & (high[among] >= low[n] - reach)).all(axis=1)
        yield np.sort(among[near])


def reading_order(headers: Mapping[str, ScanHeader]) -> list[str]:
    """Scans so that neighbours come soon after each other: by rows of the ground, those without bounds last."""
    place: dict[str, tuple[str, float, float, str]] = {}
    for common in find_common(headers):
        ground = common.crs.to_wkt() if common.crs is not None else ""
        for scan in common.scans:
            bounds = _ground(headers[scan])
            place[scan] = ("~", 0.0, 0.0, scan) if bounds is None else (ground, *bounds[0].tolist(), scan)
    return sorted(headers, key=place.__getitem__)


def _ground(header: ScanHeader) -> np.ndarray | None:
    """Smallest and largest x and y, (2, 2); None where the header does not tell them."""
    known = header.bounds is not None and np.isfinite(header.bounds).all()
    return header.bounds[:, :2] if known and header.bounds is not None else None

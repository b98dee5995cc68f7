"""Which scans are in one CRS, whatever the notation, and which lie side by side in different ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from pointcloud.cloud import ScanHeader
from pointcloud.crs import (
    has_unknown_datum,
    horizontal_part,
    is_local,
    is_same_ground,
    metres_per_unit,
    name_of,
    vertical_part,
)
from pointcloud.errors import ScanError
from pointcloud.grid.block_config import BlockConfig
from pointcloud.grid.grid import Grid

_SAME_HEIGHTS = 1e-5  # relative: the two feet are one unit where only heights are in them
_MOST_CRSS = 20  # with more groups than this, scans that are kept apart are not searched for
_NAMED = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class CommonCrs:
    """Scans in one CRS: coordinates and heights count from the same origins in the same units.

    Attributes:
        crs: the one that all of them are read in; None where their files name none.
        scans: their names, sorted.
    """

    crs: CRS | None
    scans: tuple[str, ...]

    def reach(self, config: BlockConfig) -> float:
        """How far from a scan others can matter to its tiles, in CRS units: a shared tile and its halo.

        Raises:
            ScanError: in degrees.
        """
        grid = Grid.of(config, self.crs)
        return 2 * grid.tile_cells * grid.cell_voxels * grid.voxel_size[0]


def find_common(headers: Mapping[str, ScanHeader]) -> list[CommonCrs]:
    """The scans by CRS, each scan once; a CRS with and without a vertical part is one where the units agree.

    Of one horizontal CRS with several vertical ones, scans without vertical part are a group of their own.
    """
    by_words: dict[str, list[str]] = {}
    wkt_of = {"": ""}  # each way to write a CRS is translated once: there may be ten thousand scans
    for scan, header in sorted(headers.items()):
        written = header.crs.srs if header.crs is not None else ""
        if header.crs is not None and written not in wkt_of:
            wkt_of[written] = header.crs.to_wkt()
        by_words.setdefault(wkt_of[written], []).append(scan)
    found: list[list[tuple[CRS | None, list[str]]]] = []
    # Those with a datum first: a group is compared with its first member.
    for scans in sorted(by_words.values(), key=lambda scans: _is_vague(headers[scans[0]].crs)):
        crs = headers[scans[0]].crs
        group = next((group for group in found if _is_same_grid(group[0][0], crs)), None)
        if group is None:
            found.append([(crs, scans)])
        else:
            group.append((crs, scans))
    return [common for group in found for common in _by_heights(group)]


def _is_vague(crs: CRS | None) -> bool:
    return crs is not None and has_unknown_datum(crs)


def _is_same_grid(one: CRS | None, other: CRS | None) -> bool:
    """Whether two CRSs have the same ground and the same units."""
    if one is None or other is None:
        return one is other
    try:
        units, others = metres_per_unit(one), metres_per_unit(other)
    except ScanError:
        return bool(one == other)
    same_heights = abs(units[1] / others[1] - 1) < _SAME_HEIGHTS
    return same_heights and is_same_ground(one, other)


def _by_heights(group: list[tuple[CRS | None, list[str]]]) -> list[CommonCrs]:
    """Scans of one horizontal CRS by vertical CRS; those without one join the others where these have only one."""
    found: list[tuple[CRS, list[tuple[CRS, list[str]]]]] = []
    without: list[tuple[CRS | None, list[str]]] = []
    for crs, scans in group:
        heights = vertical_part(crs) if crs is not None else None
        if crs is None or heights is None:
            without.append((crs, scans))
            continue
        same = next((members for of, members in found if of == heights or of.equals(heights)), None)
        if same is None:
            found.append((heights, [(crs, scans)]))
        else:
            same.append((crs, scans))
    groups: list[list[tuple[CRS | None, list[str]]]] = [[*members] for _, members in found]
    if len(groups) == 1:
        groups[0] += without
    elif without:
        groups.append(without)
    return [
        CommonCrs(crs=members[0][0], scans=tuple(sorted(scan for _, scans in members for scan in scans)))
        for members in groups
    ]


def adopt_crs(headers: Mapping[str, ScanHeader], config: BlockConfig) -> tuple[dict[str, CRS], list[str]]:
    """Scans that are read in another CRS than their files say: that of the scans that they lie beside.

    Scans without CRS are taken to be in the CRS of those that they overlap or adjoin, where that is one. Scans that say
    the same CRS with other digits of a unit are read with the same digits, so that their tiles are the same.

    Args:
        headers: of the scans that can be read, by name.

    Returns:
        Scan -> its CRS, and sentences that say which are taken for what.
    """
    commons, sentences = find_common(headers), list[str]()
    adopted: dict[str, CRS] = {}
    for common in commons:
        for scan in common.scans:
            own = headers[scan].crs
            if own is not None and common.crs is not None and _differs(own, common.crs):
                adopted[scan] = common.crs
    without = {scan: box for common in commons if common.crs is None for scan, box in _boxes(common, headers)}
    known = [common for common in commons if common.crs is not None]
    for common in known:
        others = [other for other in known if other is not common]
        taken = _beside(common, without, headers, config)
        taken -= {scan for other in others for scan in _beside(other, without, headers, config)}
        if taken and common.crs is not None:
            adopted |= dict.fromkeys(sorted(taken), common.crs)
            sentences.append(
                f"{listed(sorted(taken))} without CRS {'lies' if len(taken) == 1 else 'lie'} beside scans in "
                f"{name_of(common.crs)!r} and {'is' if len(taken) == 1 else 'are'} taken to be in it too; give "
                "another as crs where that is wrong."
            )
    return adopted, sentences


def kept_apart(headers: Mapping[str, ScanHeader], config: BlockConfig) -> str:
    """One sentence on scans that lie side by side and are not joined because of their CRSs; empty without any.

    Args:
        headers: by name, with the CRSs that the scans are read in.
    """
    commons = [common for common in find_common(headers) if any(_boxes(common, headers))]
    if not config.across_scans or not 1 < len(commons) <= _MOST_CRSS:
        return ""
    pairs: list[str] = []
    for n, one in enumerate(commons):
        for other in commons[n + 1 :]:
            pair = _adjoining(one, other, headers, config)
            if pair:
                first, second = (f"{s!r} ({_in_words(headers[s].crs)})" for s in pair)
                pairs.append(f"{first} and {second}")
    if not pairs:
        return ""
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return (
        f"scans in different CRSs lie side by side and are not joined, as {', '.join(pairs[:_NAMED])}{more}; "
        "give one CRS as crs, or units, where they are the same."
    )


def _in_words(crs: CRS | None) -> str:
    return f"{name_of(crs)}, metres assumed" if crs is None else name_of(crs)


def _differs(own: CRS, common: CRS) -> bool:
    try:
        return metres_per_unit(own) != metres_per_unit(common)
    except ScanError:
        return False


def _boxes(common: CommonCrs, headers: Mapping[str, ScanHeader]) -> Sequence[tuple[str, np.ndarray]]:
    """The scans whose bounds are known, with those, (2, 2)."""
    found = []
    for scan in common.scans:
        bounds = headers[scan].bounds
        if bounds is not None and np.isfinite(bounds).all():
            found.append((scan, bounds[:, :2]))
    return found


def _near(box: np.ndarray, boxes: np.ndarray, reach: float) -> np.ndarray:
    """Which of boxes (n, 2, 2) a box (2, 2) overlaps or adjoins, (n,) bool."""
    near: np.ndarray = ((boxes[:, 0] <= box[1] + reach) & (boxes[:, 1] >= box[0] - reach)).all(axis=1)
    return near


def _beside(
    common: CommonCrs,
    without: Mapping[str, np.ndarray],
    headers: Mapping[str, ScanHeader],
    config: BlockConfig,
) -> set[str]:
    """Those of some scans without CRS that lie beside scans in one, or beside scans that do."""
    boxes = [box for _, box in _boxes(common, headers)]
    try:
        reach = common.reach(config)
    except ScanError:
        return set()
    found: set[str] = set()
    pending = boxes
    while pending and len(found) < len(without):
        left = [scan for scan in without if scan not in found]
        places, pending_now = np.array([without[scan] for scan in left]), np.array(pending)
        is_near = np.zeros(len(left), bool)
        for box in pending_now:
            is_near |= _near(box, places, reach)
        new = [scan for scan, near in zip(left, is_near, strict=True) if near]
        found |= set(new)
        pending = [without[scan] for scan in new]
    return found


def _adjoining(
    one: CommonCrs, other: CommonCrs, headers: Mapping[str, ScanHeader], config: BlockConfig
) -> tuple[str, str] | None:
    """Two scans of two CRSs that lie side by side on earth, or in numbers where one of the CRSs is nowhere on earth."""
    mine, theirs = _boxes(one, headers), _boxes(other, headers)
    names, boxes = [scan for scan, _ in theirs], np.array([box for _, box in theirs])
    try:
        reach = one.reach(config)
        boxes = _in_crs(boxes, other.crs, one.crs)
    except (ScanError, ProjError):
        return None
    for scan, box in mine:
        near = np.flatnonzero(_near(box, boxes, reach))
        if len(near):
            return scan, names[near[0]]
    return None


def _in_crs(boxes: np.ndarray, crs: CRS | None, to: CRS | None) -> np.ndarray:
    """Boxes (n, 2, 2) in another CRS; unchanged where either is nowhere on earth, or they have the same ground."""
    if crs is None or to is None or is_local(crs) or is_local(to) or is_same_ground(crs, to):
        return boxes
    transformer = Transformer.from_crs(horizontal_part(crs), horizontal_part(to), always_xy=True)
    corners = np.stack([boxes[:, [0, 0, 1, 1], 0], boxes[:, [0, 1, 0, 1], 1]], axis=-1)
    x, y = transformer.transform(corners[..., 0], corners[..., 1])
    return np.stack([np.stack([x.min(1), y.min(1)], -1), np.stack([x.max(1), y.max(1)], -1)], axis=1)


def listed(scans: Sequence[str]) -> str:
    """Some names of scans, and how many more there are."""
    more = f" and {len(scans) - _NAMED} more" if len(scans) > _NAMED else ""
    return ("scan " if len(scans) == 1 else "scans ") + ", ".join(map(repr, scans[:_NAMED])) + more


def with_crs(headers: Mapping[str, ScanHeader], adopted: Mapping[str, CRS]) -> dict[str, ScanHeader]:
    """Headers with the CRSs that the scans are read in."""
    return {
        scan: replace(header, crs=adopted[scan]) if scan in adopted else header
        for scan, header in headers.items()
    }

"""The places of the shared airborne scans, and what the class codes of their producers say.

Tiles of one place belong together: a network that trained on one of them has seen the others' ground. A code may allow
several classes: AHN's 1 is neither ground nor building, so it is low or high vegetation. Credits and licences stand in
the README of the folder that holds the scans.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pointcloud.errors import PointloomError
from pointcloud.formats.crop import write_window
from pointcloud.labels import FIRST_SET, ClassLabel, LabelScheme, Producer
from pointcloud.storage.inputs import Source

Codes = Mapping[int, tuple[str, ...]]
"""Class code -> the classes that a point with it may be of; a code that is not named says nothing."""

GROUND, LOW, HIGH, BUILDING, WATER, DECK = (
    "ground",
    "low vegetation",
    "high vegetation",
    "building",
    "water",
    "bridge deck",
)

CLASSES = (
    ClassLabel(GROUND, (2,), 2, "#a6794b"),
    ClassLabel(LOW, (3, 4), 3, "#b8e186"),
    ClassLabel(HIGH, (5,), 5, "#276419"),
    ClassLabel(BUILDING, (6,), 6, "#d6604d"),
    ClassLabel(WATER, (9,), 9, "#4393c3"),
    ClassLabel(DECK, (17,), 17, "#878787"),
)

_SURE: Codes = {2: (GROUND,), 6: (BUILDING,), 9: (WATER,), 17: (DECK,)}
_VEGETATION: Codes = {3: (LOW,), 4: (LOW,), 5: (HIGH,)}
_NOT_GROUND: Codes = {1: (LOW, HIGH, BUILDING)}
_NEITHER: Codes = {1: (LOW, HIGH)}

PRODUCERS: dict[str, Codes] = {
    # IGN's vegetation: 3 below 0.5 m, 4 to 1.5 m, 5 above. 1, 64, 66, 67 are of none of the classes.
    "ign": {**_SURE, **_VEGETATION},
    # Buildings were checked; the rest is code 1, half of it on the ground.
    "ign-buildings": {**_SURE},
    # 1 is vegetation, facades, and what stands on roofs and streets; 26 are bridges, quays and locks.
    "ahn": {**_SURE, **_NOT_GROUND, 26: (GROUND, DECK)},
    "nebraska": {**_SURE, **_VEGETATION},
    "kentucky": {**_SURE, **_NOT_GROUND},
    # A part of the ground only: streets and squares are among code 1.
    "ground-only": {2: (GROUND,)},
    # Forests without buildings.
    "forest-ground-only": {2: (GROUND,), **_NEITHER},
    "neon": {2: (GROUND,), 5: (HIGH,), **_NEITHER},
    # Weak labels: 5 is any vegetation, from 0.4 m down to the ground.
    "hawaii": {2: (GROUND,), 1: (GROUND, LOW, HIGH), 5: (GROUND, LOW, HIGH)},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Scans of one spot.

    Attributes:
        kind: of landscape.
        density: points per m² of the ground that has any.
        producer: of `PRODUCERS`.
        scans: name, below the folder of the data -> the x, CRS units, from which and to which points are used; None:
            all.
    """

    kind: str
    density: float
    producer: str
    scans: Mapping[str, tuple[float, float] | None]


PLACES: dict[str, Place] = {
    "beziers": Place(
        kind="town",
        density=25.0,
        producer="ign",
        scans={
            f"lidarhd_50m/test_data_{x}_{y}_LA93_IGN69.laz": None
            for x, y in ((77050, 627760), (77055, 627755), (77055, 627760), (77060, 627755))
        },
    ),
    "delft": Place(
        kind="town",
        density=14.0,
        producer="ahn",
        scans={"ahn3_delft/ahn3_cropped_1.laz": (84808.0, 84908.0), "ahn_delft_rgb/small.laz": None},
    ),
    "pilat": Place(
        kind="mountain forest",
        density=33.0,
        producer="ign",
        scans={
            "lidarhd_forest/1_42.laz": (817572.0, 817622.0),
            "lidarhd_forest/2_42.laz": (815260.0, 815310.0),
        },
    ),
    "jura-decimated": Place(
        kind="decimated",
        density=0.3,
        producer="ign",
        scans={"lidarhd_1km/test_semis_2023_0299_6802_LA93_IGN69.laz": (299000.0, 299300.0)},
    ),
    "amsterdam-west": Place(
        kind="town",
        density=12.0,
        producer="ahn",
        scans={"ahn3_amsterdam/ahn_2386_9702.laz": None},
    ),
    "alsace": Place(
        kind="forest",
        density=18.0,
        producer="ign",
        scans={"lidarhd_forest/2_67.laz": None},
    ),
    "burgundy": Place(
        kind="village",
        density=10.0,
        producer="ign-buildings",
        scans={"lidarhd_rgb/870000_6618000.subset.postValidation.laz": None},
    ),
    "black-mountain": Place(
        kind="mountain forest",
        density=13.0,
        producer="kentucky",
        scans={"kentucky/black_mountain_200m.laz": (5755500.0, 5755828.0)},
    ),
    "loiret": Place(
        kind="wood and water",
        density=60.0,
        producer="ign",
        scans={f"lidarhd_mnx/crop_{n}.laz": None for n in (1, 2, 3)},
    ),
    "harbour": Place(
        kind="water",
        density=2.0,
        producer="ahn",
        scans={"ahn3_water/AHN3.laz": None},
    ),
    "savanna": Place(
        kind="savanna",
        density=5.4,
        producer="neon",
        scans={"florida_osbs/test.laz": None},
    ),
    "town-decimated": Place(
        kind="decimated",
        density=0.3,
        producer="ign",
        scans={"lidarhd_1km/test_semis_2023_0292_6833_LA93_IGN69.laz": (292000.0, 292300.0)},
    ),
    "amsterdam-east": Place(
        kind="town",
        density=29.0,
        producer="ahn",
        scans={"ahn4_amsterdam/ahn_2463_9714.laz": None},
    ),
    "font-blanche": Place(
        kind="forest",
        density=33.0,
        producer="ign",
        scans={"lidarhd_forest/M30_FontBlanche.laz": None},
    ),
    "coast-town": Place(
        kind="town",
        density=2.6,
        producer="ign-buildings",
        scans={
            f"lidarhd_town3/792000_6272000-50mx100m-{side}.laz": None for side in ("left", "right")
        },
    ),
    "hawaii": Place(
        kind="mountain forest",
        density=12.0,
        producer="hawaii",
        scans={
            "hawaii_forest/5QKB020880_202000_2184000_250m.laz": (202000.0, 202080.0),
            "hawaii_forest/5QKB020880_202000_2184750_250m.laz": (202000.0, 202050.0),
        },
    ),
    "gorge": Place(
        kind="mountain",
        density=4.4,
        producer="ign",
        scans={"laspy_sdist/append-bug.laz": None},
    ),
    "georgetown": Place(
        kind="bridge",
        density=4.9,
        producer="kentucky",
        scans={"kentucky/georgetown_bridge_300m.laz": None},
    ),
    "meadow": Place(
        kind="meadow",
        density=22.0,
        producer="ign",
        scans={"lidarhd_meadow/las_with_origin_dsmMarker.laz": None},
    ),
    "nebraska": Place(
        kind="town",
        density=68.0,
        producer="nebraska",
        scans={"laspy_sdist/file_with_both_wkt_and_geotiff_vlrs.las": None},
    ),
    "autzen": Place(
        kind="town",
        density=2.3,
        producer="ground-only",
        scans={"laspy_sdist/autzen_trim.laz": None},
    ),
    "bc-forest": Place(
        kind="forest",
        density=12.0,
        producer="forest-ground-only",
        scans={"bcts_forest/bcts_1.laz": (885022.0, 885082.0), "bcts_forest/bcts_2.laz": (885024.0, 885084.0)},
    ),
    "nievre-decimated": Place(
        kind="decimated",
        density=0.1,
        producer="ign",
        scans={"lidarhd_1km/test_semis_2024_0751_6690_LA93_IGN69.laz": (751000.0, 751500.0)},
    ),
}  # fmt: skip


def scheme_of(classes: tuple[ClassLabel, ...], places: Collection[str] = tuple(PLACES)) -> LabelScheme:
    """The classes, with what the codes of the places' producers allow.

    A code that allows a class which is not among these says nothing: its points may be of none of them.
    """
    names = {label.name for label in classes}
    producers = tuple(
        Producer(
            name,
            tuple(scan for place in places if PLACES[place].producer == name for scan in PLACES[place].scans),
            tuple((code, allowed) for code, allowed in sorted(codes.items()) if names.issuperset(allowed)),
        )
        for name, codes in PRODUCERS.items()
    )
    return LabelScheme("airborne", classes, producers=producers)


def allowed(codes: np.ndarray, scan: str, scheme: LabelScheme) -> np.ndarray:
    """Which classes the codes (P,) of a scan allow: (P, C) bool; none where they say nothing."""
    labels = scheme.to_labels(codes, scan)
    may_be = labels[:, None] == np.arange(len(scheme))
    for number, indices in enumerate(scheme.sets):
        may_be[np.ix_(labels == FIRST_SET - number, indices)] = True
    return may_be


def sources_of(place: Place, data: Path, folder: Path) -> list[Source]:
    """The scans of a place; those of which only a part is used are written into a folder, unless they are there.

    Raises:
        PointloomError: the data are not there.
    """
    sources = []
    for name, window in place.scans.items():
        path = data / name
        if not path.is_file():
            raise PointloomError(f"no scan {str(path)!r}; --data must name the folder of the shared scans.")
        if window is not None:
            path = folder / name.replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file():
                write_window(str(data / name), str(path), *window)
        sources.append(Source(str(path), name))
    return sources


def chosen_classes(names: list[str] | None) -> tuple[ClassLabel, ...]:
    """The classes of these names in the order of `CLASSES`; None: without water and bridge deck.

    Raises:
        PointloomError: a name that is none.
    """
    known = [label.name for label in CLASSES]
    wanted = names or known[:4]
    if unknown := sorted(set(wanted) - set(known)):
        raise PointloomError(f"no class {unknown[0]!r}; expected some of {', '.join(known)}.")
    return tuple(label for label in CLASSES if label.name in wanted)


def folds_of(places: list[str], folds: int) -> list[list[str]]:
    """Groups of places that are left out together; 0 folds: each place alone.

    The order of `PLACES` mixes landscapes and producers, so that every group has some of each.
    """
    count = folds or len(places)
    if not 1 <= count <= len(places):
        raise PointloomError(f"folds must be from 1 to {len(places)}, found {folds}.")
    return [places[n::count] for n in range(math.ceil(count))]

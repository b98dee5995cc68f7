"""Label schemes: how class codes in scans become training classes, and how classes become codes again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Any

import numpy as np

from pointcloud.errors import SchemaError
from pointcloud.storage import files

IGNORE = -1
"""The class index of a point that takes no part in training or scoring."""
NOISE_CODES = (7, 18)
"""Low noise and high noise (ASPRS LAS 1.4 R16, table 17)."""
FIRST_SET = -2
"""The label of a point that is of one of several classes, the first of `LabelScheme.sets`; the next have -3, -4, …"""
_MAX_CLASSES = 127  # class indices are int8
_MAX_SETS = 127


@dataclass(frozen=True)
class ClassLabel:
    """One class: its name, the source codes that mean it, the code written for it, its display colour.

    The name of a merged class (say vegetation = 3, 4, 5) says what `code` stands for in the output.
    """

    name: str
    source_codes: tuple[int, ...]
    code: int
    colour: str


@dataclass(frozen=True)
class PartialLabel:
    """Source codes that say only that a point is of one of several classes, by name.

    "Neither ground nor building" of a scheme with vegetation and water means vegetation or water.
    """

    source_codes: tuple[int, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Producer:
    """What codes mean in the scans of one producer, in place of what the scheme says otherwise.

    Attributes:
        name: for people.
        scans: patterns of scans' names, as `ahn*` or `*/tile_??.laz`; a scan is the first producer's that has one
            for it.
        codes: (source code, the names of the classes that it allows) for each code that says something.
    """

    name: str
    scans: tuple[str, ...]
    codes: tuple[tuple[int, tuple[str, ...]], ...]


@dataclass(frozen=True)
class LabelScheme:
    """An ordered set of classes; the class index is the position. Source codes not named are `IGNORE`.

    Attributes:
        partial: codes that allow several classes. Their points train (`models.training.losses`) and are not scored.
        producers: scans whose codes mean something else.

    Raises:
        SchemaError: a source code in two classes, a repeated name, a code that is no byte, none or too many.
    """

    name: str
    classes: tuple[ClassLabel, ...]
    partial: tuple[PartialLabel, ...] = ()
    producers: tuple[Producer, ...] = ()

    def __post_init__(self) -> None:
        codes = [code for c in self.classes for code in c.source_codes]
        codes += [code for part in self.partial for code in part.source_codes]
        names = [c.name for c in self.classes]
        if not self.classes:
            raise SchemaError(f"label scheme {self.name!r} has no class; name at least one.")
        if len(self.classes) > _MAX_CLASSES:
            raise SchemaError(
                f"label scheme {self.name!r} has {len(self.classes)} classes, more than {_MAX_CLASSES}."
            )
        of_producers = [code for producer in self.producers for code, _ in producer.codes]
        written = [c.code for c in self.classes]
        beyond = [code for code in (*codes, *of_producers, *written) if not 0 <= code <= 255]
        if beyond:
            raise SchemaError(
                f"label scheme {self.name!r} uses code {beyond[0]}, expected codes from 0 to 255."
            )
        kinds: tuple[tuple[list[Any], str], ...] = ((codes, "source code"), (names, "class name"))
        for values, what in kinds:
            twice = sorted({v for v in values if values.count(v) > 1}, key=str)
            if twice:
                raise SchemaError(f"label scheme {self.name!r} uses {what} {twice[0]!r} twice.")
        for allowed in self._named_sets():
            unknown = [name for name in allowed if name not in names]
            if unknown or not allowed:
                raise SchemaError(
                    f"label scheme {self.name!r} has a code that allows {unknown[0] if unknown else 'nothing'!r}, "
                    f"expected some of its classes: {', '.join(names)}."
                )
        if len(self.sets) > _MAX_SETS:
            raise SchemaError(
                f"label scheme {self.name!r} has {len(self.sets)} sets of classes, more than {_MAX_SETS}."
            )

    def _named_sets(self) -> Iterator[tuple[str, ...]]:
        yield from (part.classes for part in self.partial)
        yield from (allowed for producer in self.producers for _, allowed in producer.codes)

    def _indices_of(self, names: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(index for index, label in enumerate(self.classes) if label.name in names)

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes, by class index."""
        return tuple(c.name for c in self.classes)

    @property
    def colours(self) -> tuple[str, ...]:
        """The colours of the classes, by class index."""
        return tuple(c.colour for c in self.classes)

    @property
    def noise_codes(self) -> tuple[int, ...]:
        """The codes that mark noise: those of `NOISE_CODES` that no class of this scheme has."""
        learned = {code for label in self.classes for code in label.source_codes}
        learned |= {code for part in self.partial for code in part.source_codes}
        learned |= {code for producer in self.producers for code, _ in producer.codes}
        return tuple(code for code in NOISE_CODES if code not in learned)

    @cached_property
    def sets(self) -> tuple[tuple[int, ...], ...]:
        """The sets of two or more classes that a code may allow, by class index; their labels begin at `FIRST_SET`."""
        index_sets = {self._indices_of(names) for names in self._named_sets()}
        return tuple(sorted(indices for indices in index_sets if len(indices) > 1))

    def to_labels(self, codes: np.ndarray, scan: str = "") -> np.ndarray:
        """What is known of points with these source codes (P,): (P,) int8.

        A class index; of one of `sets`, `FIRST_SET` less its place; or `IGNORE` where the scheme says nothing.

        Args:
            codes: (P,) source codes.
            scan: whose they are, by name: it may be one of a producer.
        """
        table = np.full(256, IGNORE, np.int8)
        for code, names in self._allowed(scan).items():
            indices = self._indices_of(names)
            table[code] = indices[0] if len(indices) == 1 else FIRST_SET - self.sets.index(indices)
        return table[codes]

    def _allowed(self, scan: str) -> dict[int, tuple[str, ...]]:
        """The codes of a scan that say something, and the classes that each allows."""
        for producer in self.producers:
            if any(fnmatchcase(scan, pattern) for pattern in producer.scans):
                return dict(producer.codes)
        classes = {code: (label.name,) for label in self.classes for code in label.source_codes}
        return classes | {code: part.classes for part in self.partial for code in part.source_codes}

    def to_indices(self, codes: np.ndarray, scan: str = "") -> np.ndarray:
        """Class indices (P,) int8 of source codes (P,), `IGNORE` where they do not say one class; see `to_labels`."""
        return np.maximum(self.to_labels(codes, scan), IGNORE)

    def to_codes(self, indices: np.ndarray) -> np.ndarray:
        """Output codes (P,) uint8 of class indices (P,); every index must be a class."""
        return np.array([c.code for c in self.classes], np.uint8)[indices]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it; without what is empty, so that keys of schemes without it stay as they are."""
        record = asdict(self)
        for producer in record["producers"]:
            producer["codes"] = {str(code): list(names) for code, names in producer["codes"]}
        return {key: value for key, value in record.items() if value or key in ("name", "classes")}

    @staticmethod
    def from_dict(record: dict[str, Any]) -> LabelScheme:
        """Raises SchemaError when a field is missing or of the wrong kind."""
        try:
            classes = tuple(
                ClassLabel(
                    str(c["name"]), tuple(map(int, c["source_codes"])), int(c["code"]), str(c["colour"])
                )
                for c in record["classes"]
            )
            partial = tuple(
                PartialLabel(tuple(map(int, p["source_codes"])), _names(p["classes"]))
                for p in record.get("partial", ())
            )
            producers = tuple(
                Producer(str(p["name"]), _names(p["scans"]), _codes(p["codes"]))
                for p in record.get("producers", ())
            )
            return LabelScheme(str(record["name"]), classes, partial, producers)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise SchemaError(
                f"not a label scheme ({error!r}); expected name and classes, each with name, source_codes, "
                "code and colour, and perhaps partial (source_codes, classes) and producers (name, scans, codes)."
            ) from error


def _names(values: Any) -> tuple[str, ...]:
    if isinstance(values, str):  # each of its letters would be taken for a name
        raise TypeError(f"expected a list of names, found {values!r}")
    return tuple(map(str, values))


def _codes(codes: Mapping[Any, Any]) -> tuple[tuple[int, tuple[str, ...]], ...]:
    return tuple((int(code), _names(names)) for code, names in codes.items())


# Names and codes: ASPRS LAS 1.4 R16, table 17.
_GROUND = ClassLabel("ground", (2,), 2, "#a6794b")
_BUILDING = ClassLabel("building", (6,), 6, "#d6604d")
_WATER = ClassLabel("water", (9,), 9, "#4393c3")
_VEGETATION = ClassLabel("vegetation", (3, 4, 5), 5, "#4d9221")

_S3DIS = (
    ("ceiling", "#9ecae1"), ("floor", "#a6794b"), ("wall", "#bdbdbd"), ("beam", "#fdae6b"),
    ("column", "#756bb1"), ("window", "#17becf"), ("door", "#8c564b"), ("table", "#e6ab02"),
    ("chair", "#d62728"), ("sofa", "#e377c2"), ("bookcase", "#2ca02c"), ("board", "#1f3b73"),
    ("clutter", "#525252"),
)  # fmt: skip

PRESETS: dict[str, LabelScheme] = {
    scheme.name: scheme
    for scheme in (
        LabelScheme("ground-vegetation-building", (_GROUND, _VEGETATION, _BUILDING)),
        LabelScheme("asprs-basic", (_GROUND, _VEGETATION, _BUILDING, _WATER)),
        LabelScheme(
            "asprs",
            (
                _GROUND,
                ClassLabel("low vegetation", (3,), 3, "#b8e186"),
                ClassLabel("medium vegetation", (4,), 4, "#7fbc41"),
                ClassLabel("high vegetation", (5,), 5, "#276419"),
                _BUILDING,
                _WATER,
                ClassLabel("wire", (14,), 14, "#762a83"),
                ClassLabel("transmission tower", (15,), 15, "#c51b7d"),
                ClassLabel("bridge deck", (17,), 17, "#878787"),
            ),
        ),
        # S3DIS class order as published; the room reader writes the class index as the code.
        LabelScheme(
            "s3dis", tuple(ClassLabel(name, (i,), i, colour) for i, (name, colour) in enumerate(_S3DIS))
        ),
    )
}


def find_scheme(name: str) -> LabelScheme:
    """A preset by name, or the label scheme in a JSON file.

    Raises:
        StorageError: no preset of this name and no file there, or a file that is no JSON.
        SchemaError: JSON that is no label scheme.
    """
    if name in PRESETS:
        return PRESETS[name]
    if not files.exists(name):
        raise SchemaError(
            f"no label scheme {name!r}; expected one of {', '.join(PRESETS)}, or the path of a JSON file "
            "with name and classes."
        )
    return LabelScheme.from_dict(files.read_json(name))

"""Label schemes: how class codes in scans become training classes, and how classes become codes again."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pointcloud.errors import SchemaError
from pointcloud.storage import files

IGNORE = -1
"""The class index of a point that takes no part in training or scoring."""
NOISE_CODES = (7, 18)
"""Low noise and high noise (ASPRS LAS 1.4 R16, table 17)."""
_MAX_CLASSES = 127  # class indices are int8


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
class LabelScheme:
    """An ordered set of classes; the class index is the position. Source codes not named are `IGNORE`.

    Raises:
        SchemaError: a source code in two classes, a repeated name, a code that is no byte, none or too many.
    """

    name: str
    classes: tuple[ClassLabel, ...]

    def __post_init__(self) -> None:
        codes = [code for c in self.classes for code in c.source_codes]
        names = [c.name for c in self.classes]
        if not self.classes:
            raise SchemaError(f"label scheme {self.name!r} has no class; name at least one.")
        if len(self.classes) > _MAX_CLASSES:
            raise SchemaError(
                f"label scheme {self.name!r} has {len(self.classes)} classes, more than {_MAX_CLASSES}."
            )
        beyond = [code for code in (*codes, *(c.code for c in self.classes)) if not 0 <= code <= 255]
        if beyond:
            raise SchemaError(
                f"label scheme {self.name!r} uses code {beyond[0]}, expected codes from 0 to 255."
            )
        kinds: tuple[tuple[list[Any], str], ...] = ((codes, "source code"), (names, "class name"))
        for values, what in kinds:
            twice = sorted({v for v in values if values.count(v) > 1}, key=str)
            if twice:
                raise SchemaError(f"label scheme {self.name!r} uses {what} {twice[0]!r} twice.")

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
        return tuple(code for code in NOISE_CODES if code not in learned)

    def to_indices(self, codes: np.ndarray) -> np.ndarray:
        """Class indices (P,) int8 of the source codes (P,), `IGNORE` where the scheme has no class."""
        table = np.full(256, IGNORE, np.int8)
        for index, label in enumerate(self.classes):
            table[list(label.source_codes)] = index
        return table[codes]

    def to_codes(self, indices: np.ndarray) -> np.ndarray:
        """Output codes (P,) uint8 of class indices (P,); every index must be a class."""
        return np.array([c.code for c in self.classes], np.uint8)[indices]

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

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
            return LabelScheme(str(record["name"]), classes)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SchemaError(
                f"not a label scheme ({error!r}); expected name and classes, each with name, source_codes, "
                "code and colour."
            ) from error


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

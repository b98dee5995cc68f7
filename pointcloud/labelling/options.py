"""What a user may choose about labels: how they are voted on, which points they may change, what is written beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pointcloud.errors import PointloomError
from pointcloud.labels import LabelScheme

MARKED, OUTLIER = 1, 2
"""Why a point is noise: the scan marks it as noise or as withheld, or it was found to be isolated."""
UNCLASSIFIED = 1  # ASPRS LAS 1.4 R16, table 17; 0 is "created, never classified"
CONFIDENCE_STEP = 0.01
_LARGEST_NOISE_CODE = 31  # what every LAS point format can hold
FORMATS = ("same", "las", "laz", "ply", "parquet")
"""The scan's own (PLY where that has no writer), LAS or LAZ with all that a LAS file holds, or every point with all its
dimensions and the CRS."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelOptions:
    """All choices that a labelled cloud depends on beside its scan and the checkpoint.

    Attributes:
        overlap: shifted grids whose logits are averaged; None: as in training.
        rotations: turns of each block about the vertical, by 360° / rotations, whose logits are averaged.
        smoothing: each point gets the mean logits of this many nearest points, itself included; 0: no smoothing.
        min_confidence: points below it become `UNCLASSIFIED`; compared as it is written, in steps of 0.01.
        preserve: class codes of the scan that never change.
        only_unclassified: change only points whose code is 0 or 1.
        keep_original: keep the delivered classification in an extra dimension.
        entropy: write it as an extra dimension.
        probabilities: write them as extra dimensions.
        codes: (class name, code written for it), instead of the label scheme's.
        format: of the labelled clouds, one of `FORMATS`.
        upgrade: a scan of point format 0 to 5 becomes 6 to 10 where its codes do not fit.
        noise: "exclude" or "use", see `BlockConfig`; None: as in training.
        noise_code: written for isolated points that were found; None: they keep their class.

    Raises:
        PointloomError: a number out of its range, or a class with two codes.
    """

    overlap: int | None = None
    rotations: int = 1
    smoothing: int = 0
    min_confidence: float = 0.0
    preserve: tuple[int, ...] = ()
    only_unclassified: bool = False
    keep_original: bool = False
    entropy: bool = False
    probabilities: bool = False
    codes: tuple[tuple[str, int], ...] = ()
    format: str = "same"
    upgrade: bool = False
    noise: str | None = None
    noise_code: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.min_confidence <= 1 or self.rotations < 1 or self.smoothing < 0:
            raise PointloomError(
                "min_confidence must be from 0 to 1, rotations 1 or more, smoothing 0 or more."
            )
        if self.noise_code is not None and not 0 <= self.noise_code <= _LARGEST_NOISE_CODE:
            raise PointloomError(
                f"noise_code {self.noise_code} cannot be written, expected a code from 0 to {_LARGEST_NOISE_CODE}; "
                "ASPRS has 7 for low and 18 for high noise."
            )
        beyond = [
            code for code in (*self.preserve, *(code for _, code in self.codes)) if not 0 <= code <= 255
        ]
        if beyond:
            raise PointloomError(f"class code {beyond[0]} is out of range, expected codes from 0 to 255.")
        names = [name for name, _ in self.codes]
        if len(set(names)) < len(names):
            raise PointloomError("codes name a class twice; give each class one code.")

    def scheme(self, scheme: LabelScheme) -> LabelScheme:
        """A checkpoint's label scheme with the codes that these options write.

        Raises:
            PointloomError: `codes` name a class that the scheme does not have.
        """
        codes = dict(self.codes)
        unknown = sorted(codes.keys() - set(scheme.names))
        if unknown:
            raise PointloomError(
                f"codes name the class {unknown[0]!r}, the checkpoint has {', '.join(scheme.names)}; use one of these."
            )
        return replace(
            scheme, classes=tuple(replace(c, code=codes.get(c.name, c.code)) for c in scheme.classes)
        )

    def may_change(self, codes: np.ndarray) -> np.ndarray:
        """Which points, by the scan's class codes (P,) uint8, may get another: (P,) bool."""
        table = np.ones(256, bool)
        if self.only_unclassified:
            table[UNCLASSIFIED + 1 :] = False
        table[list(self.preserve)] = False
        return table[codes]

    def new_codes(
        self, codes: np.ndarray, predicted: np.ndarray, confidence: np.ndarray, no_class: int | None = None,
        noise: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Codes to write (P,) uint8, from the scan's (P,), the predicted ones (P,) and confidences (P,) in [0, 1].

        Args:
            no_class: the code of points that the scan gives none; unless it is preserved they get one.
            noise: (P,) uint8, not 0 for points that keep their code because they are noise; of these the ones with
                `OUTLIER` get `noise_code`, if there is one.
        """
        doubtful = np.rint(confidence / CONFIDENCE_STEP) < self.min_confidence / CONFIDENCE_STEP - 1e-6
        new = np.where(doubtful, np.uint8(UNCLASSIFIED), predicted)
        may_change = self.may_change(codes)
        if no_class is not None and no_class not in self.preserve:
            may_change |= codes == no_class
        if noise is not None:
            may_change &= (noise == 0) | ((noise == OUTLIER) & (self.noise_code is not None))
            new = np.where(noise == OUTLIER, np.uint8(self.noise_code or 0), new)
        return np.where(may_change, new, codes)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary that JSON can hold."""
        return asdict(self)


def parse_codes(texts: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """("vegetation=4,water=9", "ground=2") as (("ground", 2), ("vegetation", 4), …), by name. Raises PointloomError."""
    found = []
    for text in (part for whole in texts for part in whole.split(",")):
        name, equals, code = text.rpartition("=")
        if not equals or not name.strip() or not code.strip().isdecimal():
            raise PointloomError(f"cannot understand the code {text!r}; expected name=code, as vegetation=4.")
        found.append((name.strip(), int(code)))
    return tuple(sorted(found))

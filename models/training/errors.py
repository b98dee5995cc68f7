"""Errors that end a training; without torch, so that a process that only reports them starts quickly."""

from __future__ import annotations

import math

from pointcloud.errors import PointloomError

_NAMED_BLOCKS = 4


class Diverged(PointloomError):
    """A loss or gradient that became NaN or infinite. Trying again with the same settings ends the same way.

    Args:
        what: the loss, the validation loss or the gradient.
        value: inf or NaN.
        epoch: from 0.
        blocks: names of those it came from; empty where it cannot be told.
    """

    def __init__(self, what: str, value: float, epoch: int, blocks: tuple[str, ...]) -> None:
        more = f" and {len(blocks) - _NAMED_BLOCKS} more" if len(blocks) > _NAMED_BLOCKS else ""
        where = f" at {'; '.join(blocks[:_NAMED_BLOCKS])}{more}" if blocks else ""
        became = "NaN" if math.isnan(value) else "infinite"
        super().__init__(
            f"the {what} became {became} in epoch {epoch + 1}{where}; try a smaller learning_rate, and check the scans "
            "for absurd attribute values."
        )

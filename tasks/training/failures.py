"""Why a training ended early.

Ray workers tell it as small records, since Ray wraps what they raise in errors of its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from ray.util.queue import Queue

from models.training.errors import Diverged
from pointcloud.errors import PointloomError, ScanError, SchemaError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_MAX_LENGTH = 300


class Stopped(PointloomError):
    """A failure that would happen again on another try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a Ray worker, or Ray Train itself, ended.

    Attributes:
        kind: "final" where another try ends the same way, "no space" where the checkpoint's folder takes no more,
            "lost" otherwise.
        reason: one line for the user.
    """

    kind: Literal["final", "no space", "lost"]
    reason: str


def failure_of(error: BaseException) -> Failure:
    """What an exception means for the training."""
    if isinstance(error, Stopped | Diverged | ScanError | SchemaError):
        return Failure(kind="final", reason=str(error))
    if no_space := _no_space(error):
        return Failure(kind="no space", reason=no_space)
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = lines[0] if isinstance(error, PointloomError) else f"{type(error).__name__}: {lines[-1].strip()}"
    return Failure(kind="lost", reason=text.rstrip(".")[:_MAX_LENGTH])


def gravest(failures: list[Failure]) -> Failure:
    """The failure to tell the user: one that no try can change, else a full disk, else the first."""
    order = ("final", "no space", "lost")
    return min(failures, key=lambda failure: order.index(failure.kind))


@contextmanager
def failures_to(queue: Queue) -> Iterator[None]:
    """Put {"failure": Failure} into the queue when the body raises, and raise on: Ray Train then ends the others.

    Raises:
        Stopped: in place of an error that is final, since Ray cannot pickle each of them.
        Exception: any other, as it is.
    """
    try:
        yield
    except Exception as error:
        failure = failure_of(error)
        queue.put({"failure": failure})
        if failure.kind == "final":
            raise Stopped(failure.reason) from None
        raise


def _no_space(error: BaseException) -> str | None:
    """The system's words for a full or read-only disk, where one is behind an error."""
    code = getattr(error, "errno", None)
    return next((os.strerror(n) for n in _NO_SPACE if n == code or os.strerror(n) in str(error)), None)

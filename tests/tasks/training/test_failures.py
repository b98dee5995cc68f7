"""What an exception of a Ray worker means for its training, and which of several is told."""

from __future__ import annotations

import errno
import os
import pickle

import pytest

from models.training.errors import Diverged
from pointcloud.errors import ScanError, StorageError
from tasks.training.failures import Failure, Stopped, failure_of, failures_to, gravest

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (Stopped("it cannot be."), "final", "it cannot be."),
        (ScanError("scan 'a.laz' is cut off; copy it again."), "final", "scan 'a.laz' is cut off; copy it again."),
        (FULL, "no space", "No space left on device"),
        (StorageError(f"cannot write 'a': {FULL}."), "no space", "No space left on device"),
        (RuntimeError("first line\n the node is lost.\n"), "lost", "RuntimeError: the node is lost"),
        (StorageError("cannot reach 's3://a': away.\nmore"), "lost", "cannot reach 's3://a': away"),
        (KeyError(), "lost", "KeyError: KeyError"),
    ],
)  # fmt: skip
def test_what_an_exception_means(error: Exception, kind: str, reason: str) -> None:
    assert failure_of(error) == Failure(kind=kind, reason=reason)


def test_a_loss_that_became_nan_is_final() -> None:
    assert failure_of(Diverged("loss", float("nan"), 2, ())).kind == "final"


def test_the_one_that_no_try_can_change_is_told() -> None:
    lost, other, full, final = (
        Failure(kind=kind, reason=str(n)) for n, kind in enumerate(("lost", "lost", "no space", "final"))
    )
    assert gravest([lost, other]) == lost
    assert gravest([lost, full]) == full
    assert gravest([lost, full, final]) == final


class Told(list):
    put = list.append


def test_the_driver_is_told_and_the_error_goes_on() -> None:
    told = Told()
    with pytest.raises(KeyError), failures_to(told):
        raise KeyError("a")
    assert told.pop() == {"failure": Failure(kind="lost", reason="KeyError: 'a'")}
    with pytest.raises(Stopped, match="became NaN in epoch 3") as error, failures_to(told):
        raise Diverged("loss", float("nan"), 2, ())
    assert pickle.loads(pickle.dumps(error.value)).args == error.value.args, "Ray sends it to the driver"
    assert told == [{"failure": Failure(kind="final", reason=str(error.value))}]
    with failures_to(told):
        pass
    assert len(told) == 1, "nothing is told of a body that ends well"

"""What becomes of a training when its Ray workers fail, once or again and again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pointcloud.errors import PointloomError
from tasks.training import fit
from tasks.training.epochs_kept import TrainRun
from tasks.training.failures import Failure, Stopped
from tasks.training.job import TrainJob
from tests.support.clouds import assert_one_sentence

LOST = Failure(kind="lost", reason="NodeError: the node is lost")
FULL = Failure(kind="no space", reason="No space left on device")
FINAL = Failure(kind="final", reason="scan 'b.laz' is cut off; copy it again.")

Fit = Callable[..., int]


@pytest.fixture
def fit_with(small_job: TrainJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """Fits with these outcomes of the tries, "epoch" before one where an epoch is kept first; how many were made."""

    def fit_with(*outcomes: Failure | str | None) -> int:
        run, left, tries = TrainRun(str(tmp_path / "out"), "abc"), list(outcomes), []

        def one_try(*_: Any) -> Any:
            tries.append(run.is_shared())
            while left[0] == "epoch":
                del left[0]
                run.keep({"history": [{}] * (run.epochs_done() + 1), "best": {"weight": torch.zeros(1)}})
            return left.pop(0)

        monkeypatch.setattr(fit, "_fit_once", one_try)
        relay: Any = None
        fit.fit_to_end(small_job, run, relay, logging.getLogger("tests"))
        assert all(tries), "the Ray workers see the folder of the run"
        return len(tries)

    return fit_with


def test_lost_ray_workers_are_replaced(fit_with: Fit) -> None:
    assert fit_with(LOST, LOST, None) == 3


def test_only_losses_without_an_epoch_in_between_count_together(fit_with: Fit) -> None:
    assert fit_with(LOST, LOST, "epoch", LOST, LOST, "epoch", LOST, None) == 6


def test_the_third_loss_in_one_epoch_ends_the_training(fit_with: Fit) -> None:
    with pytest.raises(PointloomError, match=r"lost 3 times in epoch 2 .*the node is lost") as error:
        fit_with("epoch", LOST, LOST, LOST)
    assert_one_sentence(error, "run again")


def test_what_no_try_can_change_is_not_tried_again(fit_with: Fit) -> None:
    with pytest.raises(Stopped, match="copy it again"):
        fit_with(FINAL, None)


@pytest.mark.parametrize(
    ("outcomes", "where"), [((FULL,), "from the start"), (("epoch", FULL), "from epoch 1")]
)
def test_a_full_disk_is_said_with_what_the_next_run_goes_on_from(
    fit_with: Fit, outcomes: tuple[Failure | str, ...], where: str
) -> None:
    with pytest.raises(PointloomError, match=rf"No space left on device; make room .*{where}") as error:
        fit_with(*outcomes)
    assert_one_sentence(error, "could not be kept")

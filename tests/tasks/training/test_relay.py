"""What the driver makes of the messages of the Ray workers."""

from __future__ import annotations

import logging
import queue
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray.util.queue import Empty

from tasks.training import relay as module
from tasks.training.failures import Failure
from tasks.training.relay import Relay
from tests.tasks.prefect_ui.test_training_watch import epoch

LOST = Failure(kind="lost", reason="the node is lost")


class LocalQueue(queue.Queue):
    """As a Ray queue gives messages, in this process."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        message = None
        try:
            message = super().get(block, timeout)
        except queue.Empty:
            raise Empty from None
        if isinstance(message, Exception):
            raise message
        return message


class Shown:
    """What stands for the Prefect UI and the trackers: it notes what it is given."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.confusions: list[list[list[int]]] = []
        self.recorded: list[int] = []
        self.watch: Any = SimpleNamespace(set=lambda _, confusion: self.confusions.append(confusion))
        self.progress: Any = SimpleNamespace(step=self.epochs.append)
        self.recorder: Any = SimpleNamespace(record=lambda history: self.recorded.append(len(history)))


@pytest.fixture
def shown() -> Shown:
    return Shown()


@pytest.fixture
def relay(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> Relay:
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    messages: Any = LocalQueue()
    logger = logging.getLogger("pointloom.tests")
    return Relay(messages, 3, logger, shown.watch, shown.progress, [shown.recorder])


def take(relay: Relay, *messages: Any) -> None:
    """Hand on these messages, and end as a training does."""
    ended = threading.Event()
    for message in messages:
        relay.queue.put(message)
    ended.set()
    relay.run(ended)


def test_log_lines_failures_and_epochs_reach_whom_they_are_for(
    relay: Relay, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    history = [epoch(1), epoch(2)]
    take(
        relay,
        {"alive": True},
        {"log": (1, logging.WARNING, "a block is empty")},
        {"failure": LOST},
        {"history": history, "confusion": [[3, 1]]},
    )
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("WARNING", "Ray worker 1: a block is empty"),
        ("INFO", "epoch 2/3: loss 0.500, validation mIoU 0.500, about 2 s left"),
    ]
    assert relay.failures == [LOST]
    assert (shown.epochs, shown.recorded, shown.confusions) == ([2], [2], [[[3, 1]]])


def test_a_sign_of_life_is_noted(relay: Relay) -> None:
    relay.heard = 0.0
    take(relay, {"alive": True})
    assert relay.heard > 0


def test_an_epoch_that_cannot_be_shown_does_not_stop_the_rest(
    relay: Relay, shown: Shown, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise ConnectionError("the server is away")

    shown.watch.set = refuse
    take(relay, {"history": [epoch(1)], "confusion": []}, {"failure": LOST})
    assert "could not be shown in Prefect (the server is away)" in caplog.text
    assert relay.failures == [LOST]


def test_a_queue_that_is_lost_is_said(relay: Relay, caplog: pytest.LogCaptureFixture) -> None:
    relay.queue.put(RuntimeError("the actor died\nand more"))
    relay.run(threading.Event())
    assert "nothing more is received from the Ray workers (the actor died)" in caplog.text


def test_catching_up_waits_for_what_was_said_before(relay: Relay) -> None:
    ended = threading.Event()
    for _ in range(20):
        relay.queue.put({"failure": LOST})
    thread = threading.Thread(target=relay.run, args=(ended,))
    thread.start()
    try:
        relay.catch_up()
        assert len(relay.failures) == 20
    finally:
        ended.set()
        thread.join(20)

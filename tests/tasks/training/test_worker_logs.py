"""Which log lines of a Ray worker reach the driver."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from tasks.training.worker_logs import logs_to


class Told(list):
    """As a Ray queue takes messages."""

    put = list.append


def lines(told: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    return [message["log"] for message in told]


def test_lines_of_our_packages_and_warnings_of_others_are_sent() -> None:
    told = Told()
    with logs_to(told, 3):
        logging.getLogger("models.network").info("two\nlines %d", 7)
        logging.getLogger("models.network").debug("details")
        logging.getLogger("urllib3").info("connected")
        logging.getLogger("urllib3").warning("retried")
        logging.getLogger("ray.train").error("its own files have it")
        warnings.warn("old", UserWarning, stacklevel=1)
    logging.getLogger("models.network").warning("afterwards")
    *first, warned = lines(told)
    assert first == [(3, logging.INFO, "two lines 7"), (3, logging.WARNING, "retried")]
    assert warned[1] == logging.WARNING
    assert "old" in warned[2]


def test_a_queue_that_is_gone_ends_no_training(capsys: Any) -> None:
    class Gone:
        def put(self, message: object) -> None:
            logging.getLogger("tasks").warning("a line about the failure is not sent in turn")
            raise ConnectionError("the driver is gone")

    with logs_to(Gone(), 0):
        logging.getLogger("models").info("a line")
    assert "the driver is gone" in capsys.readouterr().err

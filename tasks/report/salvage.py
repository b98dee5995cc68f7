"""A page whose pieces may fail: what fails is said, the rest is there, and no run fails for it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from pointcloud.errors import one_line

_T = TypeVar("_T")
_Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


class Salvage:
    """Makes pieces of a page one after the other, and keeps a sentence on each that failed.

    Args:
        logger: is told the sentences as warnings, and the tracebacks at the level DEBUG.

    Attributes:
        failures: the sentences, in order.
    """

    def __init__(self, logger: _Logger) -> None:
        self._logger = logger
        self.failures: list[str] = []

    def make(self, what: str, piece: Callable[[], _T], otherwise: _T) -> _T:
        """The piece, or `otherwise` where making it fails for whatever reason: by then the labels are done.

        Args:
            what: the name of the piece in the sentence, as `the map of scans`.
        """
        try:
            return piece()
        except Exception as error:  # noqa: BLE001  # a picture may fail in any library, and no run for a picture
            self._say(what, error)
            return otherwise

    def _say(self, what: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {one_line(error)}"
        sentence = f"{what} could not be made ({reason}); labels and scores are not affected."
        self.failures.append(sentence)
        self._logger.warning("%s", sentence)
        self._logger.debug("%s", what, exc_info=error)

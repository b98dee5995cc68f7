"""A page whose parts may fail: a sentence names the part that fails, the others are shown, and the run goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from pointcloud.errors import StorageError, one_line
from pointcloud.storage import files

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
        except Exception as error:  # noqa: BLE001  # a picture may fail in any library; the run must not
            self._say(what, error)
            return otherwise

    def page(self, uri: str, content: Callable[[], bytes]) -> str:
        """Write a page; where that fails, the page of an earlier run, which would tell of other labels, goes.

        Returns:
            The URI; empty where no page was written.
        """

        def write() -> str:
            files.write_bytes(uri, content())
            return uri

        written = self.make(f"the page {uri!r}", write, "")
        if not written:
            with suppress(StorageError):
                files.delete(uri)
        return written

    def _say(self, what: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {one_line(error)}"
        sentence = f"{what} could not be made ({reason}); labels and scores are not affected."
        self.failures.append(sentence)
        self._logger.warning("%s", sentence)
        self._logger.debug("%s", what, exc_info=error)


def page_line(uri: str) -> str:
    """The last line of the command on a page that `Salvage.page` was to write."""
    try:
        written = files.exists(uri)
    except StorageError:
        written = False
    return f"report: {uri}" if written else f"report: {uri} could not be written, for the reason above"

"""Notes that many scans of a collection share, for instance because all come from one program."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any


class RepeatedNotes:
    """Logs a note with the first scan that has it, and at the end how many have it."""

    def __init__(self) -> None:
        self._num_scans: Counter[str] = Counter()

    def say(self, logger: logging.Logger | logging.LoggerAdapter[Any], scan: str, note: str) -> None:
        """Log a note on a scan, unless it was logged for another scan before."""
        self._num_scans[note] += 1
        if self._num_scans[note] == 1:
            logger.info("%s: %s", scan, note)

    def sum_up(self, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        """Log the notes that several scans have, each with their number."""
        for note, num_scans in self._num_scans.items():
            if num_scans > 1:
                logger.info("%s scans: %s", f"{num_scans:,}", note)

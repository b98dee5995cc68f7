"""A note that all scans of a collection have is logged with the first, and with their number."""

from __future__ import annotations

import logging

import pytest

from tasks.runtime.repeated_notes import RepeatedNotes


def test_a_note_is_logged_with_the_first_scan_and_with_the_number_of_scans(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger, notes = logging.getLogger("notes"), RepeatedNotes()
    with caplog.at_level(logging.INFO):
        for number in range(1200):
            notes.say(logger, f"{number}.las", "no CRS in the file; metres are assumed.")
        notes.say(logger, "7.las", "1 point is an outlier.")
        notes.sum_up(logger)
    assert [record.getMessage() for record in caplog.records] == [
        "0.las: no CRS in the file; metres are assumed.",
        "7.las: 1 point is an outlier.",
        "1,200 scans: no CRS in the file; metres are assumed.",
    ]

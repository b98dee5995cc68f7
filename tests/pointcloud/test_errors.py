"""What a library's error says becomes a part of a sentence."""

from __future__ import annotations

import pytest

from pointcloud.errors import first_line, one_line


@pytest.mark.parametrize(
    ("said", "first", "all_of_it"),
    [
        ("It broke.", "It broke", "It broke"),
        ("\n It broke:\n  at 3.\n", "It broke:", "It broke: at 3"),
        ("", "ValueError", "ValueError"),
    ],
)
def test_an_error_in_one_line(said: str, first: str, all_of_it: str) -> None:
    assert first_line(ValueError(said)) == first
    assert one_line(ValueError(said)) == all_of_it

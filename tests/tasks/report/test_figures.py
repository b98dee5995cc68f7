"""Numbers as people read them."""

from __future__ import annotations

import pytest

from tasks.report.figures import counted, grouped, per_cent


def test_thousands_are_grouped_and_nouns_follow_the_number() -> None:
    assert grouped(1_234_567) == "1\u202f234\u202f567"
    assert counted(1, "scan", "scans") == "1 scan"
    assert counted(0, "scan", "scans") == "0 scans"
    assert counted(1000, "scan", "scans") == "1\u202f000 scans"


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (None, "–"),
        (0.0, "0.0\u202f%"),
        (1.0, "100.0\u202f%"),
        (0.9999, ">\u202f99.9\u202f%"),
        (1e-5, "<\u202f0.1\u202f%"),
    ],
)
def test_a_share_is_never_rounded_to_all_or_nothing(share: float | None, text: str) -> None:
    assert per_cent(share) == text

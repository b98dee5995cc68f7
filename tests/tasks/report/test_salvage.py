"""A piece of a page that fails is one sentence, and nothing else fails."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tasks.report.salvage import Salvage, page_line


def test_a_piece_that_fails_is_said_and_the_others_are_made(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> str:
        raise KeyError("name\nof a CRS.")

    salvage = Salvage(logging.getLogger("page"))
    with caplog.at_level(logging.WARNING):
        assert salvage.make("the legend", lambda: "legend", "") == "legend"
        assert salvage.make("the map", fails, "no map") == "no map"
        assert salvage.make("the table", lambda: "table", "") == "table"
    (sentence,) = salvage.failures
    assert sentence.startswith("the map could not be made (KeyError: ")
    assert sentence.endswith("; labels and scores are not affected.")
    assert "\n" not in sentence
    assert caplog.messages == [sentence]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_a_run_that_is_to_end_ends(kind: type[BaseException]) -> None:
    def stops() -> None:
        raise kind

    with pytest.raises(kind):
        Salvage(logging.getLogger("page")).make("the map", stops, None)


def test_a_page_that_cannot_be_made_leaves_none_of_an_earlier_run_and_the_command_says_so(
    tmp_path: Path,
) -> None:
    salvage, uri = Salvage(logging.getLogger("test")), str(tmp_path / "report.html")
    assert salvage.page(uri, lambda: b"page") == uri
    assert page_line(uri) == f"report: {uri}"

    def fails() -> bytes:
        raise KeyError("name")

    assert salvage.page(uri, fails) == ""
    assert not (tmp_path / "report.html").exists()
    assert page_line(uri) == f"report: {uri} could not be written, for the reason above"
    assert [f"the page {uri!r} could not be made" in sentence for sentence in salvage.failures] == [True]

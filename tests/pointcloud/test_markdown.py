"""Markdown tables hold any text."""

from __future__ import annotations

from pointcloud.markdown import cell, table


def test_a_table_has_a_rule_for_each_column() -> None:
    assert table(["scan", "points", "share"], [("a.las", "3", "1 %")], align="lr") == [
        "| scan | points | share |", "| --- | ---: | ---: |", "| a.las | 3 | 1 % |",
    ]  # fmt: skip
    assert table(["a", "b"], [])[1] == "| --- | --- |"
    assert table(["a"], [], align="rll")[1] == "| ---: |"


def test_bars_and_line_breaks_stay_in_their_cell() -> None:
    assert cell("roof|wall\nx") == "roof\\|wall x"
    assert table(["a|b"], [["c\nd"]]) == ["| a\\|b |", "| --- |", "| c d |"]

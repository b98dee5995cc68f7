"""The command that looks at scans: a table or JSON, and a status that is not 0 when one is no use."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.__main__ import main
from tests.support import broken_files
from tests.support.clouds import write_las


def test_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_las(tmp_path / "a.laz", 500)
    with pytest.raises(SystemExit) as done:
        main(["inspect", str(path)])
    assert not done.value.code
    said = capsys.readouterr().out
    for expected in (
        str(path),
        "LAZ 1.4, point format 6",
        "500",
        "metre (assumed)",
        "--voxel-size-m",
        "ground",
    ):
        assert expected in said


def test_bad_scans_are_sentences_between_the_good_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_las(tmp_path / "a.las")
    broken_files.not_a_las(tmp_path)
    broken_files.zero_points(tmp_path)
    assert main(["inspect", str(tmp_path), "--read"]) == 1
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line]
    assert len(lines) == 3
    assert all(line.startswith("error: ") for line in lines)
    assert "2 of 3 scans cannot be used" in lines[-1]
    assert "a.las" in said.out


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_las(tmp_path / "a.las")
    broken_files.not_a_las(tmp_path)
    assert main(["inspect", str(tmp_path), "--json"]) == 1
    good, bad = json.loads(capsys.readouterr().out)
    assert good["points"] == 50
    assert "LAS signature" in bad["error"]


def test_nothing_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path / "nowhere")]) == 1
    assert "give an existing file" in capsys.readouterr().err

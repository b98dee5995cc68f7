"""The command that looks at scans: a table or JSON, and a status that is not 0 when one is no use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flows import inspect
from flows.__main__ import main
from tests.support import broken_files, strange_inspections
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


def test_a_crs_and_units_that_are_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("north_1.las", "south_1.las"):
        write_las(tmp_path / name)
    options = ["--crs", "EPSG:2154", "--crs", "south_*=EPSG:2225", "--units", "south_*=,m", "--json"]
    with pytest.raises(SystemExit) as done:
        main(["inspect", str(tmp_path), *options])
    assert not done.value.code
    north, south = json.loads(capsys.readouterr().out)
    assert north["crs"] == "RGF93 v1 / Lambert-93"
    assert south["unit"] == {"horizontal": "US survey foot", "vertical": "metre"}
    assert south["extent_m"][0] == pytest.approx(north["extent_m"][0] * 1200 / 3937)
    assert south["extent_m"][2] == pytest.approx(north["extent_m"][2])
    assert any(
        "taken to be 'NAD83" in note and note.endswith("no CRS in the file.") for note in south["notes"]
    )


@pytest.mark.parametrize("option", [["--crs", "EPSG:4326"], ["--units", "x"], ["--crs", "north_*=EPSG:2154"]])
def test_a_crs_that_cannot_be_is_refused(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_las(tmp_path / "a.las")
    assert main(["inspect", str(tmp_path), *option]) == 1
    assert option[1].split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("look", "said"),
    [
        (strange_inspections.fail, "failed unexpectedly (ZeroDivisionError: strange)"),
        (strange_inspections.crash, "its decoder crashed (SIGSEGV)"),
        (strange_inspections.devour, "more memory than the limit of 1500 MB"),
    ],
)
def test_a_scan_whose_reading_goes_wrong_does_not_hide_the_others(
    look: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bad", "good"):
        write_las(tmp_path / f"{name}.las")
    monkeypatch.setattr(inspect, "inspect_scan", look)
    assert main(["inspect", str(tmp_path), "--json", "--memory-mb", "1500"]) == 1
    bad, good = json.loads(capsys.readouterr().out)
    assert said in bad["error"]
    assert str(tmp_path / "bad.las") in bad["error"]
    assert good["points"] == 50


@pytest.mark.parametrize("bounds", [np.zeros(6), np.full(6, np.nan), np.full(6, np.inf)])
def test_json_is_json_whatever_a_header_says(
    bounds: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_las(tmp_path / "a.las")
    content = bytearray(path.read_bytes())
    content[131:155] = np.array([0.001, 0.001, 0.001]).tobytes()
    content[179:227] = bounds.tobytes()
    path.write_bytes(content)
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path), "--json"])
    said = capsys.readouterr().out
    (record,) = json.loads(said, parse_constant=pytest.fail)
    assert record["bounds"][1] > record["bounds"][0]
    assert any("bounds" in note for note in record["notes"])


def test_nan_is_null(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_las(tmp_path / "a.las")
    monkeypatch.setattr(inspect, "inspect_scan", strange_inspections.find_nan)
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path), "--json"])
    (record,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (record["area_m2"], record["extent_m"]) == (None, [1.0, None, 2.0])

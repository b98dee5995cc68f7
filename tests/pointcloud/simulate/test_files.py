"""Written surveys: real LAS files, the same bytes for the same seed, whole or not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import laspy
import numpy as np
import pytest

from pointcloud.errors import PointloomError, StorageError
from pointcloud.simulate import files
from pointcloud.simulate.__main__ import main
from pointcloud.simulate.survey import SurveyConfig, simulate_cloud, simulate_tile

SMALL = SurveyConfig(tile_size_m=20.0, tiles=(2, 1), points_per_m2=4.0)


@pytest.mark.parametrize("suffix", [".laz", ".las"])
def test_files_hold_the_survey(tmp_path: Path, suffix: str) -> None:
    paths = files.write_survey(SMALL, tmp_path / "new" / "folder", suffix)
    assert [p.name for p in paths] == [f"simulated_{x}_6862000{suffix}" for x in (652000, 652020)]
    assert sorted(p.name for p in paths[0].parent.iterdir()) == [p.name for p in paths]
    for i, path in enumerate(paths):
        las = laspy.read(path)
        assert (las.header.version.major, las.header.version.minor) == (1, 4)
        assert las.header.point_format.id == 6
        assert las.header.creation_date == date(2025, 1, 1)
        assert las.header.generating_software == las.header.system_identifier == "Pointloom simulated survey"
        assert las.header.are_points_compressed == (suffix == ".laz")
        assert las.header.parse_crs().to_epsg() == 2154
        assert las.header.global_encoding.wkt
        notice = [v for v in las.vlrs if v.record_id == 3 and v.user_id == "LASF_Spec"]
        assert b"not measured" in notice[0].record_data_bytes()
        for name, values in simulate_tile(SMALL, i, 0).items():
            np.testing.assert_array_equal(las[name], values, err_msg=name)
        np.testing.assert_array_equal(las.xyz, simulate_cloud(SMALL, i, 0).xyz)
        assert las.header.mins[0] >= 652_000 + 20 * i
        assert las.header.maxs[0] < 652_020 + 20 * i


def test_the_same_seed_makes_the_same_bytes(tmp_path: Path) -> None:
    one = files.write_tile(SMALL, 1, 0, tmp_path / "a").read_bytes()
    assert files.write_tile(SMALL, 1, 0, tmp_path / "b").read_bytes() == one
    assert files.write_tile(replace(SMALL, seed=1), 1, 0, tmp_path / "c").read_bytes() != one


def test_a_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(config: SurveyConfig, i: int, j: int) -> Iterator[dict[str, np.ndarray]]:
        yield simulate_tile(config, i, j)
        raise RuntimeError("power cut")

    monkeypatch.setattr(files, "simulate_chunks", fails)
    with pytest.raises(RuntimeError, match="power cut"):
        files.write_tile(SMALL, 0, 0, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_errors_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(PointloomError, match="suffix"):
        files.write_survey(SMALL, tmp_path, ".xyz")
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="choose a folder"):
        files.write_survey(SMALL, blocked)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["survey", "--out", str(tmp_path), "--tiles", "1", "1", "--tile-size-m", "15", "--seed", "3"]
    assert main(arguments) == 0
    assert "Simulated data, not measured: 1 tiles" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    assert len(laspy.read(path)) > 1000
    assert main([*arguments, "--epsg", "4326"]) == 2
    assert "not projected" in capsys.readouterr().err
    assert main(["rooms", "--out", str(tmp_path / "r"), "--areas", "2", "--rooms-per-area", "1",
                 "--points-per-m2", "5"]) == 0  # fmt: skip
    assert (tmp_path / "r" / "Area_2" / "office_1" / "Annotations").is_dir()
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "SIMULATED" in capsys.readouterr().out

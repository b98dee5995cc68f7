"""Inspecting: right without reading where the header is enough, and sizes of blocks that can be used."""

from __future__ import annotations

import json
from pathlib import Path

import laspy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS

from pointcloud.blocks.tiles import iterate_blocks, thin
from pointcloud.errors import ScanError
from pointcloud.formats import las, reader
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.grid.block_config import BlockConfig
from pointcloud.quality.inspect import choose_config, inspect_scan
from tests.pointcloud.formats.test_s3dis import room
from tests.support import broken_files
from tests.support.clouds import SCHEME, assert_one_sentence, write_las
from tests.support.scan_files import ply_bytes


def grid(
    path: Path, side: int = 40, step: float = 0.5, crs: str | None = "EPSG:2154", **dimensions: object
) -> str:
    """side² points, a level square with one every `step` CRS units."""
    header = laspy.LasHeader(version="1.4", point_format=7)
    header.scales = np.full(3, 0.001)
    if crs:
        header.add_crs(CRS(crs))
    cell = np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2)
    xyz = {"X": cell[:, 0] * int(step * 1000), "Y": cell[:, 1] * int(step * 1000), "Z": 0}
    return str(write_las(path, side * side, header=header, **xyz, **dimensions))


def test_headers_and_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(las, "CHUNK_POINTS", 100)
    path = grid(tmp_path / "a.laz", classification=np.repeat([2, 6], 800))
    found = inspect_scan(path)
    assert (found.num_points, found.num_read, found.is_sample) == (1600, 100, True)
    assert found.class_counts == {2: 100}
    assert found.extent_m == pytest.approx((19.5, 19.5, 0))
    assert found.density == pytest.approx(1600 / 19.5**2)
    assert found.config == BlockConfig(tile_size_m=32.0, halo_m=4.0, voxel_size_m=0.5, ground_window_m=32.0)
    whole = inspect_scan(path, read=True)
    assert (whole.num_read, whole.is_sample) == (1600, False)
    assert whole.class_counts == {2: 800, 6: 800}
    assert [whole.class_name(code) for code in (2, 6, 64)] == [
        "ground",
        "building",
        "reserved or user-defined",
    ]
    assert whole.density == pytest.approx(4.0, rel=0.1)


def test_the_ground_that_is_covered(tmp_path: Path) -> None:
    # A strip along the diagonal of its bounding box.
    along = np.arange(2000) * 100
    path = str(
        write_las(
            tmp_path / "a.las",
            6000,
            X=np.tile(along, 3),
            Y=np.repeat([0, 400, 800], 2000) + np.tile(along, 3),
            Z=0,
        )
    )
    box, covered = inspect_scan(path), inspect_scan(path, read=True)
    assert not box.is_covered
    assert covered.is_covered
    assert covered.area_m2 < 0.15 * box.area_m2
    assert covered.density == pytest.approx(6000 / covered.area_m2)


def test_sizes_are_metres_for_a_scan_in_feet(tmp_path: Path) -> None:
    found = inspect_scan(grid(tmp_path / "a.las", crs="EPSG:2225"))
    assert found.extent_m[0] == pytest.approx(19.5 * 1200 / 3937)
    assert found.to_dict()["unit"] == {"horizontal": "US survey foot", "vertical": "US survey foot"}
    assert found.config is not None
    assert found.config.voxel_size_m == 0.2  # half a foot is 0.15


@given(density=st.floats(0.01, 1e6))
def test_every_density_has_sizes_that_fit(density: float) -> None:
    config = choose_config(density)
    assert config.voxels_per_tile == 64
    assert 0 < config.halo_m < config.tile_size_m
    if 0.04 <= density <= 2500:
        assert 0.7 < config.voxel_size_m * density**0.5 < 1.42


def test_16_points_per_square_metre_are_the_defaults() -> None:
    assert choose_config(16) == BlockConfig()


def test_blocks_of_the_chosen_sizes_have_about_4096_points(tmp_path: Path) -> None:
    path = grid(tmp_path / "a.las", side=200, step=0.25)
    config = inspect_scan(path).config
    assert config is not None
    cloud = reader.read_cloud(path)
    blocks = list(iterate_blocks("a", cloud, thin(cloud, config), config, SCHEME))
    assert max(int(block.is_core.sum()) for block in blocks) == 4096


def test_unfilled_colours_and_stray_points_are_noted(tmp_path: Path) -> None:
    found = inspect_scan(grid(tmp_path / "a.las", red=0, green=0, blue=0))
    assert "red" not in found.attributes
    assert "its colours are all 0: they count as absent." in found.notes
    assert "red" in inspect_scan(grid(tmp_path / "b.las")).attributes
    far = inspect_scan(str(broken_files.huge_extent(tmp_path)))
    assert far.config is None
    assert "stray points" in far.notes[-1]
    one = inspect_scan(str(broken_files.one_point(tmp_path)))
    assert (one.num_points, one.density, one.config) == (1, None, None)


def test_scans_whose_headers_say_little_are_read(tmp_path: Path) -> None:
    rows = np.rec.fromarrays(
        [*(np.random.default_rng(0).random((3, 500)) * 5), np.full(500, 3)], names="x,y,z,label"
    )
    (tmp_path / "a.ply").write_bytes(
        ply_bytes(np.asarray(rows).astype([(n, "f8") for n in ("x", "y", "z", "label")]))
    )
    found = inspect_scan(str(tmp_path / "a.ply"))
    assert found.num_read == 500
    assert found.class_counts == {3: 500}
    inside = inspect_scan(str(room(tmp_path, wall_1="0 0 0 1 1 1\n1 1 1 2 2 2\nbad\n")))
    assert inside.num_points == 2
    assert [inside.class_name(code) for code in inside.class_counts or {}] == ["wall"]
    assert "line 3: malformed" in inside.notes[0]


def test_the_record_is_json(tmp_path: Path) -> None:
    record = inspect_scan(grid(tmp_path / "a.laz")).to_dict()
    assert json.loads(json.dumps(record, allow_nan=False))["points"] == 1600
    assert record["crs"] == "RGF93 v1 / Lambert-93"
    assert {"nir", "red", "gps_time"} - {"nir"} <= set(record["dimensions"])


def test_scans_of_no_use(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="counts in degrees") as error:
        inspect_scan(grid(tmp_path / "degrees.las", crs="EPSG:4326"))
    assert_one_sentence(error, "degrees.las")
    for writer in (broken_files.zero_points, broken_files.nan_scale, broken_files.truncated_laz):
        with pytest.raises(ScanError):
            inspect_scan(str(writer(tmp_path)), read=True)


def test_a_crs_that_is_given_goes_before_that_of_the_file(tmp_path: Path) -> None:
    path = grid(tmp_path / "degrees.las", crs="EPSG:4326")
    found = inspect_scan(path, given=GivenCrs.parse(["degrees.las=EPSG:2225"], ["*=,m"]), name="degrees.las")
    assert found.extent_m[0] == pytest.approx(19.5 * 1200 / 3937)
    assert found.to_dict()["unit"] == {"horizontal": "US survey foot", "vertical": "metre"}
    assert any("its file says 'WGS 84'" in note for note in found.notes)
    with pytest.raises(ScanError, match="counts in degrees"):
        inspect_scan(path, given=GivenCrs.parse(["other.las=EPSG:2225"]), name="degrees.las")

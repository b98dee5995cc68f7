"""The S3DIS reader: every point once, the known defects, and errors that say what to do."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointcloud.errors import ScanError
from pointcloud.formats.reader import read_cloud, read_header
from pointcloud.labels import PRESETS


def room(folder: Path, **objects: str) -> Path:
    """A room whose objects have the given file contents."""
    annotations = folder / "room_1" / "Annotations"
    annotations.mkdir(parents=True, exist_ok=True)
    for name, text in objects.items():
        (annotations / f"{name}.txt").write_bytes(text.encode("latin-1"))
    return annotations.parent


def test_points_colours_and_classes(tmp_path: Path) -> None:
    folder = room(
        tmp_path,
        wall_2="1 2 3 10 20 30\n",
        ceiling_1="-1.5 0.25 2.9 255 0 128\n4 5 6 1 2 3\n",
        wall_1="7 8 9 0 0 0",
    )
    cloud = read_cloud(str(folder))
    names = [PRESETS["s3dis"].names[code] for code in cloud.attributes["classification"]]
    assert names == ["ceiling", "ceiling", "wall", "wall"]
    np.testing.assert_array_equal(cloud.xyz, [[-1.5, 0.25, 2.9], [4, 5, 6], [7, 8, 9], [1, 2, 3]])
    np.testing.assert_array_equal(cloud.attributes["red"], np.array([255, 1, 0, 10]) * 257)
    np.testing.assert_array_equal(cloud.attributes["green"], np.array([0, 2, 0, 20]) * 257)
    np.testing.assert_array_equal(cloud.attributes["blue"], np.array([128, 3, 0, 30]) * 257)
    assert cloud.attributes["red"].dtype == np.uint16
    assert cloud.attributes["classification"].dtype == np.uint8
    assert cloud.crs is None


def test_every_class_has_its_index(tmp_path: Path) -> None:
    for index, name in enumerate(PRESETS["s3dis"].names):
        cloud = read_cloud(str(room(tmp_path / name, **{f"{name}_1": "0 0 0 1 1 1\n"})))
        assert cloud.attributes["classification"].tolist() == [index]


def test_unknown_classes_are_clutter(tmp_path: Path) -> None:
    folder = str(room(tmp_path, stairs_1="0 0 0 1 1 1\n", Wall_1="1 0 0 1 1 1\n"))
    cloud = read_cloud(folder)
    assert read_header(folder).notes == ("objects outside the 13 classes are read as clutter: stairs.",)
    assert [PRESETS["s3dis"].names[c] for c in cloud.attributes["classification"]] == ["wall", "clutter"]


BAD_LINES = [
    "22.1 6.7 3.0 185\x10187 182 170",  # as in Area_5/hallway_6
    "1 2 3 4 5",
    "1 2 3 4 5 6 7",
    "nan 2 3 4 5 6",
    "1 inf 3 4 5 6",
    "1 2 3 4 5 256",
    "1 2 3 -4 5 6",
    "x y z r g b",
    "1_0 2 3 4 5 6",
    "# 1 2 3 4 5 6",
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_malformed_line_is_skipped_counted_and_logged(
    tmp_path: Path, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = room(tmp_path, wall_1=f"1 1 1 1 1 1\n{line}\n2 2 2 2 2 2\n", floor_1="3 3 3 3 3 3\n")
    with caplog.at_level(logging.WARNING):
        cloud = read_cloud(str(folder))
    np.testing.assert_array_equal(cloud.xyz[:, 0], [3, 1, 2])
    (record,) = caplog.records
    assert "wall_1.txt, line 2: malformed" in record.getMessage()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.sampled_from([*BAD_LINES, ""]), st.integers(0, 255)), max_size=12))
def test_good_lines_are_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str | int]
) -> None:
    """Whatever stands between them, the good lines are the cloud, and the rest is counted."""
    text = "\n".join(f"{v} 0.5 0 {v} 0 0" if isinstance(v, int) else v for v in lines)
    folder = room(tmp_path_factory.mktemp("room"), chair_1=text, floor_1="-1 0 0 1 1 1")
    notes: list[str] = []
    cloud = read_cloud(str(folder), notes.append)
    good = [v for v in lines if isinstance(v, int)]
    assert cloud.xyz[:, 0].tolist() == [*good, -1]
    assert cloud.attributes["red"].tolist() == [257 * v for v in good] + [257]
    assert len(notes) == sum(isinstance(v, str) and v != "" for v in lines)


def test_a_file_of_rubbish_does_not_fill_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = room(tmp_path, wall_1="rubbish\n" * 500, floor_1="0 0 0 0 0 0\n")
    with caplog.at_level(logging.WARNING):
        assert len(read_cloud(str(folder))) == 1
    assert len(caplog.records) == 11
    assert "500 malformed lines" in caplog.records[-1].getMessage()


def test_what_is_not_an_object_is_not_read(tmp_path: Path) -> None:
    folder = room(tmp_path, wall_1="1 1 1 1 1 1\n", empty_1="")
    (folder / "Annotations" / "._wall_1.txt").write_bytes(b"\x00\x05\x16\x07")
    (folder / "Annotations" / "Icon").write_bytes(b"")
    (folder / "copy_Room_1.txt").write_text("9 9 9 9 9 9\n")
    notes: list[str] = []
    cloud = read_cloud(str(folder), notes.append)
    assert cloud.xyz.tolist() == [[1, 1, 1]]
    (note,) = [n for n in notes if "13 classes" not in n]
    assert "'copy_Room_1.txt' is not named after the room ('room_1.txt'); it is not read" in note


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"does not exist.*folder of an S3DIS room"):
        read_cloud(str(tmp_path / "nowhere"))
    with pytest.raises(ScanError, match=r"is no scan.*folder Annotations"):
        read_cloud(str(tmp_path))
    with pytest.raises(ScanError, match=r"holds no \.txt file"):
        read_cloud(str(room(tmp_path / "a")))
    with pytest.raises(ScanError, match="no readable point in 1 files"):
        read_cloud(str(room(tmp_path / "b", wall_1="not a point\n")))

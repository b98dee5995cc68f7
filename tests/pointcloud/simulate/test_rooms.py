"""Simulated rooms: the S3DIS folder format, all 13 classes, geometry that could be a room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pointcloud.errors import PointloomError, StorageError
from pointcloud.formats.reader import read_cloud
from pointcloud.formats.s3dis import is_room
from pointcloud.labels import PRESETS
from pointcloud.simulate.rooms import NOTICE, RoomsConfig, simulate_room, write_rooms

CONFIG = RoomsConfig(areas=(1, 6), rooms_per_area=4, points_per_m2=12.0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_folders_are_those_of_s3dis(tmp_path: Path) -> None:
    rooms = write_rooms(CONFIG, tmp_path)
    names = ("office_1", "conferenceRoom_1", "hallway_1", "office_2")
    assert rooms == [tmp_path / f"Area_{a}" / n for a in (1, 6) for n in names]
    assert sorted(p.name for p in (tmp_path / "Area_1").iterdir()) == sorted(names)
    for room in rooms:
        assert is_room(str(room))
        assert not is_room(str(room.parent))
        whole = np.loadtxt(room / f"{room.name}.txt")
        cloud = read_cloud(str(room))
        assert whole.shape == (len(cloud), 6)
        # The same points, which the reader orders by file name.
        np.testing.assert_allclose(np.sort(whole[:, 0]), np.sort(cloud.xyz[:, 0]))
    line = (rooms[0] / "Annotations" / "ceiling_1.txt").read_text().splitlines()[0].split()
    assert len(line) == 6
    assert all(0 <= int(c) <= 255 for c in line[3:])


def test_the_first_office_has_all_classes(tmp_path: Path) -> None:
    office = write_rooms(RoomsConfig(areas=(5,), rooms_per_area=1, points_per_m2=20.0), tmp_path)[0]
    counts = np.bincount(read_cloud(str(office)).attributes["classification"], minlength=13)
    assert len(counts) == 13
    assert counts.min() > 20


@pytest.mark.parametrize("number", [0, 1, 2])
def test_geometry(number: int) -> None:
    _, objects = simulate_room(RoomsConfig(points_per_m2=60.0), 1, number)
    assert {name for name, _ in objects} <= set(PRESETS["s3dis"].names)
    by_class = {name: np.vstack([p for n, p in objects if n == name]) for name, _ in objects}
    everything = np.vstack([p for _, p in objects])
    assert np.ptp(by_class["floor"][:, 2]) < 0.06
    assert by_class["ceiling"][:, 2].mean() - by_class["floor"][:, 2].mean() == pytest.approx(2.9, abs=0.01)
    low, high = by_class["floor"][:, :2].min(axis=0) - 0.2, by_class["floor"][:, :2].max(axis=0) + 0.2
    assert ((everything[:, :2] > low) & (everything[:, :2] < high)).all(), "nothing stands outside the room"
    assert everything[:, 2].min() > -0.05
    assert everything[:, 2].max() < 2.95
    # A door is an opening in the wall: no wall point lies in front of it.
    door = next(p for n, p in objects if n == "door")
    x0, x1 = door[:, 0].min() + 0.02, door[:, 0].max() - 0.02
    wall = by_class["wall"]
    in_front = (
        (wall[:, 0] > x0) & (wall[:, 0] < x1) & (wall[:, 1] < door[:, 1].mean() + 0.1) & (wall[:, 2] < 2.0)
    )
    assert not in_front.any()


def test_the_same_seed_makes_the_same_bytes_and_rooms_are_replaced(tmp_path: Path) -> None:
    config = RoomsConfig(areas=(2,), rooms_per_area=2, points_per_m2=5.0)
    write_rooms(config, tmp_path / "a")
    first = contents(tmp_path / "a")
    write_rooms(config, tmp_path / "a")
    write_rooms(config, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == first
    write_rooms(RoomsConfig(1, (2,), 2, 5.0), tmp_path / "b")
    assert contents(tmp_path / "b") != first
    assert b"not measured" in (tmp_path / "a" / "Area_2" / "office_1" / NOTICE).read_bytes()


def test_a_measured_room_is_never_replaced(tmp_path: Path) -> None:
    real = tmp_path / "Area_1" / "office_1"
    real.mkdir(parents=True)
    (real / "office_1.txt").write_text("0 0 0 1 2 3\n")
    with pytest.raises(StorageError, match="not a simulated room"):
        write_rooms(CONFIG, tmp_path)
    assert contents(tmp_path) == {"Area_1/office_1/office_1.txt": b"0 0 0 1 2 3\n"}


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ({"seed": -1}, "seed"),
        ({"areas": ()}, "areas"),
        ({"areas": (1, 1)}, "areas"),
        ({"rooms_per_area": 0}, "rooms_per_area"),
        ({"points_per_m2": 0.0}, "points_per_m2"),
    ],
)
def test_bad_settings_are_named(setting: dict, named: str) -> None:
    with pytest.raises(PointloomError, match=named):
        RoomsConfig(**setting)

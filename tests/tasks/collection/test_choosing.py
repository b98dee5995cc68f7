"""What `segment --only` means, where the names of scans have slashes: rooms in their areas."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointcloud.errors import PointloomError
from pointcloud.storage.inputs import Source
from tasks.collection.plan import choose
from tasks.segmenting.scans import find_scans
from tests.pointcloud.formats.test_s3dis import room
from tests.support.clouds import assert_one_sentence, write_las

AREAS = {"Area_1": ("hallway_1", "office_1", "office_10"), "Area_2": ("Office[2]", "office_1")}


@pytest.fixture
def sources(tmp_path: Path) -> list[Source]:
    scans = tmp_path / "scans"
    for area, rooms in AREAS.items():
        (scans / area).mkdir(parents=True)
        for name in rooms:
            room(tmp_path, wall_1="1 2 3 4 5 6\n").rename(scans / area / name)
    write_las(scans / "a.las", 5)
    return find_scans([str(scans)], str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("only", "meant"),
    [
        ("Area_1/office_*", "Area_1/office_1 Area_1/office_10"),
        ("Area_1/office_1", "Area_1/office_1"),
        ("Area_1/office_1/", "Area_1/office_1"),
        ("Area_1/office_?", "Area_1/office_1"),
        ("*/office_1", "Area_1/office_1 Area_2/office_1"),
        ("*_1", "Area_1/hallway_1 Area_1/office_1 Area_2/office_1"),
        ("Area_2/Office[2]", "Area_2/Office[2]"),
        ("Area_2/* a.las Area_2/office_1", "Area_2/Office[2] Area_2/office_1 a.las"),
        ("", "Area_1/hallway_1 Area_1/office_1 Area_1/office_10 Area_2/Office[2] Area_2/office_1 a.las"),
    ],
)
def test_rooms_are_meant_by_name_and_by_glob(sources: list[Source], only: str, meant: str) -> None:
    assert choose(sources, only.split()) == meant.split()


@pytest.mark.parametrize(
    "nobody", ["office_1", "Area_1/Office_*", "area_1/*", "Area_3/*", "Area_1/office_1/Annotations", "/"]
)
def test_who_is_not_there_is_named(sources: list[Source], nobody: str) -> None:
    with pytest.raises(PointloomError, match="has such a name") as error:
        choose(sources, ["a.las", nobody])
    assert_one_sentence(error, repr(nobody))

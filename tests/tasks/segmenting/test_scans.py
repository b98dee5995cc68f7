"""Which scans a run of segment works on: of every format, under names that do not clash, its own outputs left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pointcloud.dataset.preprocessing import examine
from pointcloud.delivery.las_copy import output_name
from pointcloud.delivery.read_back import find_clouds, stem_of
from pointcloud.delivery.table_copy import write_exported
from pointcloud.errors import PointloomError, StorageError
from pointcloud.formats.reader import read_header
from pointcloud.labelling.options import LabelOptions
from pointcloud.storage import files, ledger
from pointcloud.storage.inputs import Source
from tasks.collection.plan import Collection
from tasks.segmenting.estimate import estimate
from tasks.segmenting.job import STAGE, SegmentJob
from tasks.segmenting.scans import find_scans
from tests.models.test_predictor import make_predictor
from tests.pointcloud.formats.test_s3dis import room
from tests.support.clouds import SMALL, assert_one_sentence, read_labelled, write_las
from tests.support.scan_files import ply_bytes

ROWS = np.zeros(3, [("x", "f8"), ("y", "f8"), ("z", "f8")])


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with a LAS file, a PLY file, arrays and a room in an area."""
    folder = tmp_path / "scans"
    folder.mkdir()
    write_las(folder / "a.las", 5)
    (folder / "b.ply").write_bytes(ply_bytes(ROWS))
    np.savez(folder / "c.npz", xyz=np.zeros((3, 3)))
    room(folder / "Area_1", wall_1="1 2 3 4 5 6\n")
    return folder


def names(sources: list[Source]) -> list[str]:
    return [source.name for source in sources]


def test_scans_of_every_format_are_found_and_an_out_folder_within_is_left_out(
    scans: Path, tmp_path: Path
) -> None:
    everything = ["Area_1/room_1", "a.las", "b.ply", "c.npz"]
    out = scans / "labelled"
    assert names(find_scans([str(scans)], str(out))) == everything
    (out / "Area_1").mkdir(parents=True)
    (out / "Area_1/room_1.ply").write_bytes(ply_bytes(ROWS))
    (out / "b.ply").write_bytes(ply_bytes(ROWS))
    said: list[str] = []
    assert names(find_scans([str(scans)], str(out), report=said.append)) == everything
    assert "2 files below the out folder" in said[0]
    one_room = [str(scans / "Area_1/room_1"), str(scans / "Area_1/room_1/")]
    assert names(find_scans(one_room, str(out))) == ["room_1"]
    room(tmp_path / "Area_2", wall_1="1 2 3 4 5 6\n")
    with pytest.raises(StorageError, match="would both be called 'room_1'") as error:
        find_scans([*one_room, str(tmp_path / "Area_2/room_1")], str(out))
    assert_one_sentence(error, "Area_2")


@pytest.mark.parametrize("format", ["las", "laz"])
def test_what_is_no_las_cannot_become_las(scans: Path, tmp_path: Path, format: str) -> None:
    with pytest.raises(PointloomError, match=f"labelled cloud cannot be {format}") as error:
        find_scans([str(scans)], str(tmp_path / "out"), format)
    assert_one_sentence(error, "room_1")
    assert names(find_scans([str(scans / "a.las")], str(tmp_path / "out"), format)) == ["a.las"]
    for other in ("same", "ply", "parquet"):
        assert len(find_scans([str(scans)], str(tmp_path / "out"), other)) == 4


def test_two_scans_that_would_become_one_are_refused(scans: Path, tmp_path: Path) -> None:
    (scans / "c.ply").write_bytes(ply_bytes(ROWS))
    with pytest.raises(PointloomError, match=r"would both become 'c\.ply'") as error:
        find_scans([str(scans)], str(tmp_path / "out"))
    assert_one_sentence(error, "c.npz")
    (scans / "c.ply").rename(scans / "Area_1/room_1.ply")
    with pytest.raises(PointloomError, match=r"would both become 'Area_1/room_1\.ply'"):
        find_scans([str(scans)], str(tmp_path / "out"))


def test_what_an_earlier_run_has_labelled_into_the_folder_of_its_scans_is_no_scan(
    scans: Path, tmp_path: Path
) -> None:
    (scans / "b.ply").unlink()
    (scans / "c.ply").write_bytes(ply_bytes(ROWS))
    (scans / "Area_1/room_1.ply").write_bytes(ply_bytes(ROWS))
    for scan, output in (("c.npz", "c.ply"), ("Area_1/room_1", "Area_1/room_1.ply")):
        record = ledger.Record(stage=STAGE, scan=scan, key="key", state=ledger.DONE, path=output)
        ledger.write(str(scans), record)
    patterns = [str(scans / "*.np*"), str(scans / "*.ply"), str(scans / "Area_1")]
    with pytest.raises(PointloomError, match="would overwrite its scan"):
        find_scans([*patterns, str(scans / "a.las")], str(scans))
    (scans / "a.las").unlink()
    assert names(find_scans([str(scans)], str(scans))) == ["Area_1/room_1", "c.npz"]
    with pytest.raises(PointloomError, match="would both become"):
        find_scans([str(scans)], str(tmp_path / "out"))


def test_a_room_in_a_bucket_is_labelled_beside_itself(scans: Path, bucket: str) -> None:
    rooms = files.join(bucket, "rooms here")
    for file in files.list_files(str(scans / "Area_1")):
        files.write_bytes(files.join(rooms, "Area_1", *file.name.split("/")), files.read_bytes(file.uri))
    out = files.join(rooms, "labelled")
    (source,) = find_scans([rooms], out)
    assert source.name == "Area_1/room_1"
    made = files.join(out, output_name(source.name))
    write_exported(source.uri, made, np.array([7], np.uint8), np.ones(1, np.float32), LabelOptions(), {})
    assert find_scans([rooms], out) == [source]
    (cloud,) = find_clouds([out])
    assert stem_of(cloud.name) == stem_of(source.name)
    assert read_labelled(cloud.uri)[0].attributes["classification"].tolist() == [7]
    assert examine(source).header is not None


def test_a_room_is_known_by_the_content_of_its_files(scans: Path) -> None:
    folder = scans / "Area_1/room_1"
    source = Source(str(folder), "Area_1/room_1")
    first = examine(source)
    assert first.header is not None
    assert examine(source).fingerprint == first.fingerprint
    wall = folder / "Annotations/wall_1.txt"
    wall.write_text("1 2 3 4 5 7\n")
    changed = examine(source).fingerprint
    wall.rename(wall.with_name("door_1.txt"))
    assert len({first.fingerprint, changed, examine(source).fingerprint}) == 3
    (folder / "Annotations/door_1.txt").unlink()
    empty = examine(source)
    assert empty.header is None
    assert "holds no .txt file" in empty.error


def test_an_estimate_says_which_scans_it_does_not_count(scans: Path) -> None:
    headers = {name: read_header(str(scans / name)) for name in ("Area_1/room_1", "b.ply")}
    job = SegmentJob(
        checkpoint="checkpoint", identity="identity", record=make_predictor().checkpoint, out="out", num_actors=1,
        cpus_per_actor=1, memory_mb=1000, time_limit_s=10.0, config=SMALL, options=LabelOptions(),
    )  # fmt: skip
    for chosen, expected in (
        (
            ("Area_1/room_1", "b.ply"),
            "3 points in 1 scan to label, and 1 scan whose header tells no number of points",
        ),
        (
            ("Area_1/room_1",),
            "0 points in 0 scans to label, and 1 scan whose header tells no number of points",
        ),
    ):
        some = {name: headers[name] for name in chosen}
        collection = Collection(
            stage="segment", sources={}, keys=dict.fromkeys(some, "key"), headers=some, neighbours={}, records={},
            plan=ledger.Plan(new=chosen),
        )  # fmt: skip
        assert expected in estimate(collection, job)


def test_finding_scans_loads_neither_torch_nor_ray_nor_prefect() -> None:
    code = (
        "import sys, tasks.segmenting.scans\n"
        "assert not {'torch', 'ray', 'prefect'} & set(sys.modules), 'finding scans loads more than it needs'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr

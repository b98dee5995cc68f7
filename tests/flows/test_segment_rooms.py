"""The main job on rooms, and PLY scans: as delivered to labelled clouds and their scores, with real Prefect and Ray."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flows.evaluate import EvaluateParameters, evaluate
from flows.preprocess import preprocess
from flows.segment import SegmentParameters, check, segment
from flows.train import train
from pointcloud.errors import PointloomError
from pointcloud.formats.ply import iterate_rows
from pointcloud.formats.reader import read_cloud
from pointcloud.simulate.rooms import RoomsConfig, write_rooms
from tests.flows.test_main_job import preprocessing, small_training
from tests.support.scan_files import ply_bytes

NAMES = ["Area_1/office_1", "Area_2/office_1"]
pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole job was done once: rooms/, blocks/, checkpoint/, rooms/labelled/, scores.json."""
    root = tmp_path_factory.mktemp("rooms-job")
    write_rooms(RoomsConfig(areas=(1, 2), rooms_per_area=1, points_per_m2=40.0), root / "rooms")
    preprocess(
        preprocessing(
            [root / "rooms"], root / "blocks", label_scheme="s3dis", tile_size_m=2.0, voxel_size_m=0.1, halo_m=0.2,
            ground_window_m=2.0, val_fraction=0, val_scans=["Area_2/*"],
        )
    )  # fmt: skip
    train(small_training(root / "blocks", root / "checkpoint", epochs=1))
    # Beside the rooms, as somebody with one disk has it.
    segment(segmenting(root, root / "rooms", root / "rooms" / "labelled"))
    evaluate(
        EvaluateParameters(
            labelled=[str(root / "rooms" / "labelled")], truth=[str(root / "rooms")], out=str(root),
            label_scheme="s3dis", checkpoint=str(root / "checkpoint"),
        )
    )  # fmt: skip
    return root


def segmenting(root: Path, scans: Path, out: Path, **changes: object) -> SegmentParameters:
    settings = {"cpus_per_actor": 1} | changes
    return SegmentParameters(
        scans=[str(scans)], checkpoint=str(root / "checkpoint"), out=str(out), **settings
    )  # fmt: skip


def test_every_room_comes_back_labelled(done: Path) -> None:
    out, right, scored = done / "rooms" / "labelled", 0, 0
    for name in NAMES:
        labelled, before = read_cloud(str(out / f"{name}.ply")), read_cloud(str(done / "rooms" / name))
        np.testing.assert_array_equal(labelled.xyz, before.xyz)
        for colour in ("red", "green", "blue"):
            np.testing.assert_array_equal(labelled.attributes[colour], before.attributes[colour])
        found, truth = labelled.attributes["classification"], before.attributes["classification"]
        assert found.max() < 13
        right, scored = right + np.count_nonzero(found == truth), scored + len(truth)
        record = json.loads((out / "ledger/segment" / f"{name}.json").read_text())
        assert record["points_in"] == record["details"]["proof"]["points"] == len(before)
        assert (out / "tiles" / f"{name}.parquet").exists()
    scores = json.loads((done / "scores.json").read_text())
    assert scores["num_scored"] == scored
    assert scores["overall_accuracy"] == pytest.approx(right / scored)
    page = (out / "report.html").read_text()
    assert all(name in page for name in NAMES)


def test_a_second_run_does_nothing_and_a_changed_room_is_labelled_again(done: Path) -> None:
    rooms, out = done / "rooms", done / "rooms" / "labelled"
    (plan,) = segment(segmenting(done, rooms, out, dry_run=True))
    assert "0 scans to do (2 unchanged)" in plan
    file = sorted((rooms / NAMES[0] / "Annotations").iterdir())[0]
    content = file.read_bytes()
    file.write_bytes(content + b"1 2 3 4 5 6\n")
    (plan,) = segment(segmenting(done, rooms, out, dry_run=True))
    file.write_bytes(content)
    assert "1 scan to do (1 changed, 1 unchanged)" in plan
    assert "1 scan whose header tells no number of points" in plan
    with pytest.raises(PointloomError, match="is neither LAS nor LAZ"):
        check(segmenting(done, rooms, out, format="laz"))


def test_a_ply_scan_keeps_what_nobody_knows(done: Path, tmp_path: Path) -> None:
    cloud = read_cloud(str(done / "rooms" / NAMES[0]))
    colours = [(colour, "u1") for colour in ("red", "green", "blue")]
    kinds = [("x", "f8"), ("y", "f8"), ("z", "f8"), *colours, ("scan_id", "u2"), ("label", "i4")]
    rows = np.zeros(len(cloud), kinds)
    rows["x"], rows["y"], rows["z"] = cloud.xyz.T
    for colour in ("red", "green", "blue"):
        rows[colour] = cloud.attributes[colour] // 257
    rows["scan_id"] = np.arange(len(rows)) % 9999
    rows["label"] = cloud.attributes["classification"]
    (tmp_path / "a.ply").write_bytes(ply_bytes(rows))
    (made,) = segment(segmenting(done, tmp_path / "a.ply", tmp_path / "out"))
    found = np.concatenate(list(iterate_rows(made)))
    for name in rows.dtype.names or ():
        np.testing.assert_array_equal(found[name], rows[name], err_msg=name)
        assert found[name].dtype == rows[name].dtype
    # The same points as the room's get the same labels.
    labelled = read_cloud(str(done / "rooms" / "labelled" / f"{NAMES[0]}.ply"))
    np.testing.assert_array_equal(found["classification"], labelled.attributes["classification"])
    scores = evaluate(
        EvaluateParameters(
            labelled=[made], truth=[str(tmp_path / "a.ply")], out=str(tmp_path), label_scheme="s3dis"
        )
    )
    assert scores["overall_accuracy"] == pytest.approx((found["classification"] == rows["label"]).mean())

"""Clouds of the same points side by side: lined up whatever their chunks, other points named, memory bounded."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import laspy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyproj import CRS

from pointcloud.cloud import Cloud
from pointcloud.delivery import read_back, side_by_side
from pointcloud.delivery.side_by_side import iterate_same_points
from pointcloud.errors import PointloomError
from tests.support.clouds import assert_one_sentence
from tests.support.scan_files import ply_bytes

NUM = 1000


@pytest.fixture
def points() -> dict[str, np.ndarray]:
    """By name; each has coordinates of its own, so that points out of line are seen."""
    count = np.arange(NUM)
    columns = {axis: (count * step % 977) / 100 for axis, step in (("x", 7), ("y", 31), ("z", 1))}
    return {**columns, "classification": (count % 7).astype(np.uint8), "confidence": count % 101 / 100}


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every format is read in chunks of another size."""
    for module, size in (
        ("formats.las", 97),
        ("formats.ply", 64),
        ("formats.arrays", 300),
        ("delivery.read_back", 41),
        ("formats.s3dis", 33),
    ):
        monkeypatch.setattr(f"pointcloud.{module}.CHUNK_POINTS", size)


def write(path: Path, points: dict[str, np.ndarray]) -> str:
    if path.suffix in (".las", ".laz"):
        header = laspy.LasHeader(version="1.4", point_format=6)
        header.scales = np.full(3, 0.01)
        header.add_extra_dim(
            laspy.ExtraBytesParams("confidence", np.uint8, scales=np.array([0.01]), offsets=np.array([0.0]))
        )
        las = laspy.LasData(header)
        las.x, las.y, las.z = (points[axis] for axis in "xyz")
        las.classification, las.confidence = points["classification"], points["confidence"]
        las.write(str(path))
    elif path.suffix == ".ply":
        path.write_bytes(ply_bytes(np.rec.fromarrays(list(points.values()), names=list(points))))
    elif path.suffix == ".npz":
        np.savez(path, **points)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table(points), path, row_group_size=150)
    else:  # a room: objects of any length, each with a class
        (path / "Annotations").mkdir(parents=True)
        for start in range(0, NUM, 110):
            rows = np.stack([points[axis][start : start + 110] for axis in "xyz"], axis=1)
            file = path / "Annotations" / f"wall_{start:04}.txt"
            np.savetxt(file, np.hstack([rows, np.zeros_like(rows)]), fmt="%.2f")
    return str(path)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("labelled", ["a.laz", "a.ply", "a.parquet", "a.npz"])
def test_chunks_of_any_size_are_lined_up(
    labelled: str, points: dict[str, np.ndarray], tmp_path: Path
) -> None:
    uri = write(tmp_path / labelled, points)
    names = ("b.las", "b.laz", "b.ply", "b.parquet", "b.npz", "room_1")
    others = [write(tmp_path / name, points) for name in names]
    found = list(iterate_same_points(uri, dict.fromkeys([*others, uri], "scored against")))
    assert len(found) > NUM // 41
    assert max(len(same.clouds[uri]) for same in found) <= 41
    for other in (uri, *others):
        clouds = [same.clouds[other] for same in found]
        xyz = np.concatenate([cloud.xyz for cloud in clouds])
        np.testing.assert_allclose(xyz, np.stack([points[axis] for axis in "xyz"], axis=1), atol=1e-9)
        codes = np.concatenate([cloud.attributes["classification"] for cloud in clouds])
        np.testing.assert_array_equal(codes, 2 if other.endswith("room_1") else points["classification"])
    sure = [same.confidence for same in found]
    if labelled == "a.npz":  # no labelled cloud is written as one
        assert sure == [None] * len(found)
    else:
        np.testing.assert_allclose(np.concatenate(sure), points["confidence"])
    unasked = iterate_same_points(uri, dict.fromkeys(others, "scored against"), with_confidence=False)
    assert all(same.confidence is None for same in unasked)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("suffix", ["las", "ply", "parquet", "npz"])
def test_other_points_in_a_later_chunk_are_named(
    suffix: str, points: dict[str, np.ndarray], tmp_path: Path
) -> None:
    labelled = write(tmp_path / "a.laz", points)

    def refused(moved: dict[str, np.ndarray]) -> str:
        other = write(tmp_path / f"b.{suffix}", moved)
        with pytest.raises(PointloomError) as error:
            list(iterate_same_points(labelled, {labelled: "shown beside", other: "scored against"}))
        assert_one_sentence(error, "a.laz")
        assert "which it is scored against" in str(error.value) or "they are scored" in str(error.value)
        return str(error.value)

    z = points["z"].copy()
    z[[700, 950]] += (0.25, 0.5)
    assert "lie up to 0.5 m from those of" in refused(points | {"z": z})
    # One point fewer moves all that follow, and what is said is the number of points.
    shorter = {name: np.delete(values, 800) for name, values in points.items()}
    assert f"has 1,000 points and '{tmp_path}/b.{suffix}', which it is scored against, 999;" in refused(
        shorter
    )
    longer = {name: np.append(values, values[-400:]) for name, values in points.items()}
    assert "which it is scored against, 1,400;" in refused(longer)


def test_memory_does_not_grow_with_the_clouds(
    points: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("formats.las", "formats.ply", "delivery.read_back"):
        monkeypatch.setattr(f"pointcloud.{module}.CHUNK_POINTS", 5_000)
    peaks = []
    for times in (20, 200):
        many = {name: np.tile(values, times) for name, values in points.items()}
        labelled = write(tmp_path / "a.las", many)
        others = [write(tmp_path / "b.ply", many), write(tmp_path / "b.las", many)]
        del many
        tracemalloc.start()
        for _ in iterate_same_points(labelled, dict.fromkeys(others, "scored against")):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Ten times the points; the larger clouds alone would be 3 × 200,000 × 25 bytes.
    assert peaks[1] < 1.2 * peaks[0] < 10e6


def test_no_cloud_is_decoded_further_than_the_others(
    points: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointcloud.formats.las.CHUNK_POINTS", 100)
    decoded: dict[str, int] = {}

    def counted(uri: str, crs: CRS | None) -> Iterator[Cloud]:
        for cloud in read_back.iterate_classified(uri, crs):
            decoded[uri] = decoded.get(uri, 0) + len(cloud)
            yield cloud

    monkeypatch.setattr(side_by_side, "iterate_classified", counted)
    one, other = write(tmp_path / "a.las", points), write(tmp_path / "b.las", points)
    for taken, _ in enumerate(iterate_same_points(one, {other: "scored against"}), start=1):
        assert decoded == {one: 100 * taken, other: 100 * taken}

"""Evaluation: what cannot be compared is refused, and what is compared is compared point by point."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyproj import CRS

from flows.evaluate import EvaluateParameters, check, evaluate
from pointcloud.delivery.table_copy import write_exported
from pointcloud.errors import PointloomError
from pointcloud.formats.reader import read_cloud
from pointcloud.labelling.options import LabelOptions
from tests.support.clouds import read_labelled


def relabelled(scan: Path, out: Path, change) -> Path:
    """A copy of a scan with something changed."""
    cloud = laspy.read(scan)
    change(cloud)
    out.parent.mkdir(parents=True, exist_ok=True)
    cloud.write(out)
    return out


def parameters(labelled: Path, truth: Path, out: Path, **changes: object) -> EvaluateParameters:
    return EvaluateParameters(labelled=[str(labelled)], truth=[str(truth)], out=str(out), **changes)


@pytest.fixture
def scan(survey: Path) -> Path:
    return sorted(survey.glob("*.laz"))[0]


def test_the_truth_itself_scores_one_and_every_wrong_point_counts(scan: Path, tmp_path: Path) -> None:
    assert evaluate(parameters(scan, scan, tmp_path))["miou"] == 1.0

    def ground_becomes_building(cloud: laspy.LasData) -> None:
        codes = np.asarray(cloud.classification).copy()
        codes[np.flatnonzero(codes == 2)[:10]] = 6
        cloud.classification = codes

    wrong = relabelled(scan, tmp_path / "labelled" / scan.name, ground_becomes_building)
    scores = evaluate(parameters(wrong, scan, tmp_path))
    assert scores["num_scored"] * (1 - scores["overall_accuracy"]) == pytest.approx(10)
    assert "report.html" in {p.name for p in tmp_path.iterdir()}


def test_other_points_than_the_truth_are_refused(scan: Path, tmp_path: Path) -> None:
    def moved(cloud: laspy.LasData) -> None:
        cloud.X = np.asarray(cloud.X) + np.int32(5)

    def shorter(cloud: laspy.LasData) -> None:
        cloud.points = cloud.points[:-1]

    for change, expected in (
        (moved, "m from those of"),
        (shorter, "same points in the same order"),
    ):
        labelled = relabelled(scan, tmp_path / "labelled" / scan.name, change)
        with pytest.raises(PointloomError, match=expected):
            evaluate(parameters(labelled, scan, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_truth_without_any_class_is_refused(scan: Path, tmp_path: Path) -> None:
    def unclassified(cloud: laspy.LasData) -> None:
        cloud.classification = np.ones(len(cloud.points), np.uint8)

    truth = relabelled(scan, tmp_path / "truth" / scan.name, unclassified)
    with pytest.raises(PointloomError, match="use the scheme of the scans"):
        evaluate(parameters(scan, truth, tmp_path))


def test_several_scans_and_two_versions_are_compared_point_by_point(survey: Path, tmp_path: Path) -> None:
    def spoil(num_points: int):
        def change(cloud: laspy.LasData) -> None:
            codes = np.asarray(cloud.classification).copy()
            codes[np.flatnonzero(codes == 2)[:num_points]] = 6
            cloud.classification = codes

        return change

    scans = sorted(survey.glob("*.laz"))
    for n, scan in enumerate(scans):
        relabelled(scan, tmp_path / "labelled" / scan.name, spoil(10 * (n + 1)))
        relabelled(scan, tmp_path / "last" / scan.name, spoil(100))
    out = tmp_path / "out"
    scores = evaluate(
        parameters(tmp_path / "labelled", survey, out, against=[str(tmp_path / "last")], title="Night run")
    )
    assert scores["num_scored"] * (1 - scores["overall_accuracy"]) == pytest.approx(30)
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    wrong = {(r["version"], r["scan"]): r["support"] - r["given"][0] for r in rows if r["class"] == "ground"}
    names = [scan.name for scan in scans]
    assert wrong == {
        ("labelled", names[0]): 10, ("labelled", names[1]): 20, ("labelled", "all scans"): 30,
        ("against", names[0]): 100, ("against", names[1]): 100, ("against", "all scans"): 200,
    }  # fmt: skip
    for text in ((out / "scores.md").read_text(), (out / "report.html").read_text()):
        assert "Scores per scan" in text
        assert "Two versions" in text
        assert all(name in text for name in names)
    (tmp_path / "last" / names[0]).unlink()
    with pytest.raises(PointloomError, match="no other version for"):
        check(parameters(tmp_path / "labelled", survey, out, against=[str(tmp_path / "last")]))


def written_as(scan: Path, out: Path) -> Path:
    """A scan as `segment` writes it in another format, ten points of ground as buildings, half sure of all."""
    codes = np.asarray(laspy.read(scan).classification).copy()
    codes[np.flatnonzero(codes == 2)[:10]] = 6
    out.parent.mkdir(parents=True, exist_ok=True)
    write_exported(str(scan), str(out), codes, np.full(len(codes), 0.5, np.float32), LabelOptions(), {})
    return out


@pytest.mark.parametrize("suffix", [".ply", ".parquet"])
def test_labelled_clouds_of_every_format_are_compared_with_the_truth_of_any(
    scan: Path, tmp_path: Path, suffix: str
) -> None:
    labelled = written_as(scan, tmp_path / "labelled" / f"{scan.stem}{suffix}")
    # What else lies beside labelled clouds.
    for name in (f"tiles/{scan.name}.parquet", "review/review.parquet"):
        (labelled.parent / name).parent.mkdir()
        pq.write_table(
            pa.table({"scan": [scan.name], "x": [0.0], "y": [0.0], "z": [0.0]}), labelled.parent / name
        )
    scores = evaluate(parameters(labelled.parent, scan, tmp_path / "out", against=[str(scan)]))
    assert scores["num_scored"] * (1 - scores["overall_accuracy"]) == pytest.approx(10)
    assert evaluate(parameters(labelled, labelled, tmp_path / "self"))["miou"] == 1.0
    cloud, confidence = read_labelled(str(labelled))
    whole = read_cloud(str(scan))
    np.testing.assert_array_equal(cloud.xyz, whole.xyz)
    assert cloud.crs == whole.crs
    np.testing.assert_array_equal(cloud.attributes["intensity"], whole.attributes["intensity"])
    np.testing.assert_array_equal(confidence, np.full(len(whole), 0.5, np.float32))


def test_a_torn_table_is_named(scan: Path, tmp_path: Path) -> None:
    (tmp_path / f"{scan.stem}.parquet").write_bytes(b"torn")
    with pytest.raises(PointloomError, match=rf"{scan.stem}\.parquet"):
        evaluate(parameters(tmp_path, scan, tmp_path / "out"))


def results(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


@pytest.mark.parametrize("suffix", [".ply", ".parquet"])
def test_chunks_of_any_size_give_the_same_files(
    scan: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = written_as(scan, tmp_path / "labelled" / f"{scan.stem}{suffix}")
    given = parameters(labelled, scan, tmp_path / "out", against=[str(scan)], delivered=[str(labelled)])
    evaluate(given)
    expected = results(tmp_path / "out")
    for module, size in (("formats.las", 701), ("formats.ply", 64 * 17), ("delivery.read_back", 400)):
        monkeypatch.setattr(f"pointcloud.{module}.CHUNK_POINTS", size)
    evaluate(given)
    assert results(tmp_path / "out") == expected


def test_scores_count_every_point_where_pictures_are_made_from_a_sample(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labelled = written_as(scan, tmp_path / "labelled" / f"{scan.stem}.parquet")
    expected = evaluate(parameters(labelled, scan, tmp_path / "whole"))
    monkeypatch.setattr("tasks.evaluating.evaluate._POINTS_KEPT", 500)
    assert evaluate(parameters(labelled, scan, tmp_path / "sample")) == expected
    whole, sample = results(tmp_path / "whole"), results(tmp_path / "sample")
    said = b"its pictures are made from 500 of its"
    assert said in sample.pop("report.html")
    assert said not in whole.pop("report.html")
    assert whole == sample


def test_other_points_far_into_a_scan_and_as_delivered_are_refused(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pointcloud.formats.las.CHUNK_POINTS", 500)

    def last_moved(cloud: laspy.LasData) -> None:
        x = np.asarray(cloud.X).copy()
        x[-1] += round(0.75 / cloud.header.scales[0])
        cloud.X = x

    moved = relabelled(scan, tmp_path / "moved" / scan.name, last_moved)
    for changes, words in (
        ({"truth": [str(moved)]}, "scored against"),
        ({"against": [str(moved)]}, "scored against"),
        ({"delivered": [str(moved)]}, "shown beside"),
    ):
        given = parameters(scan, scan, tmp_path / "out").model_copy(update=changes)
        with pytest.raises(PointloomError, match=rf"lie up to 0\.75 m from those of .*moved.*{words}"):
            evaluate(given)
    assert not (tmp_path / "out").exists()


def test_clouds_with_a_wrong_crs_are_compared_in_the_one_that_is_given(scan: Path, tmp_path: Path) -> None:
    def in_degrees(cloud: laspy.LasData) -> None:
        cloud.header.add_crs(CRS("EPSG:4326"), keep_compatibility=False)

    wrong = relabelled(scan, tmp_path / "wrong" / scan.name, in_degrees)
    with pytest.raises(PointloomError, match="counts in degrees"):
        evaluate(parameters(wrong, wrong, tmp_path / "out"))
    given = parameters(wrong, wrong, tmp_path / "out", crs=[f"{scan.name}=EPSG:2225"])
    assert evaluate(given)["miou"] == 1.0
    assert b"NAD83 / California zone 1 (ftUS)" in (tmp_path / "out" / "report.html").read_bytes()
    with pytest.raises(PointloomError, match="'other'"):
        check(parameters(wrong, wrong, tmp_path / "out", units=["other=ft"]))

"""A scan that kills its decoder ends in quarantine, and the actor goes on with its network and the next scan."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.network.deepgcn import DeepGCN
from models.weights.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from pointcloud.blocks.features import num_channels
from pointcloud.blocks.ground import describe_noise
from pointcloud.delivery.las_copy import output_name
from pointcloud.errors import PointloomError
from pointcloud.formats.reader import read_cloud
from pointcloud.labelling.label_points import label_points
from pointcloud.labelling.options import LabelOptions
from pointcloud.labels import PRESETS, LabelScheme
from pointcloud.quality.drift import Range, Seen
from pointcloud.storage import files
from pointcloud.storage.ledger import DONE, QUARANTINED, UNREACHED
from pointcloud.storage.lock import held
from tasks.collection import outage
from tasks.collection.engine import CANNOT_BEGIN
from tasks.collection.plan import ScanToDo
from tasks.segmenting import labeller
from tasks.segmenting.actor import ScanSegmenter
from tasks.segmenting.job import SegmentJob
from tasks.segmenting.segment import plan_segmenting
from tests.models.test_predictor import CLOUD, make_predictor
from tests.pointcloud.delivery.test_scan_columns import annotated, arrays, scanned
from tests.pointcloud.storage.test_full_disk import no_room_beyond
from tests.support import broken_files, lethal_decoders
from tests.support.clouds import REAL, read_labelled, write_las
from tests.support.noise import with_points
from tests.support.wrong_units import miswritten, simulated

LIDARHD = "lidarhd_50m/*.laz"


@pytest.fixture
def job(tmp_path: Path) -> SegmentJob:
    save_checkpoint(str(tmp_path / "checkpoint"), make_predictor(voxel_size_m=1.0).checkpoint)
    return planned(str(tmp_path / "checkpoint"), str(tmp_path / "labelled"))


def planned(checkpoint: str, out: str, **options: Any) -> SegmentJob:
    return plan_segmenting(
        checkpoint=checkpoint, out=out, options=LabelOptions(**options), num_actors=1, cpus_per_actor=1, memory_mb=1500,
        time_limit_s=30.0,
    )  # fmt: skip


def published(job: SegmentJob, checkpoint: Checkpoint) -> SegmentJob:
    """A job like that with another checkpoint in the same place."""
    save_checkpoint(job.checkpoint, checkpoint)
    return planned(job.checkpoint, job.out)


def run(actor: ScanSegmenter, scan: Path, beside: dict[str, str] | None = None) -> dict[str, Any]:
    return asdict(actor.work(ScanToDo(name=scan.name, uri=str(scan), key="k", neighbours=beside or {})))


@pytest.mark.parametrize(
    ("decoder", "said"),
    [
        (lethal_decoders.crash, "its decoder crashed (SIGSEGV)"),
        (lethal_decoders.abort, "more memory than the limit of 1500 MB"),
        (lethal_decoders.devour, "more memory than the limit of 1500 MB"),
    ],
)
def test_a_decoder_that_dies_ends_its_scan_only(
    job: SegmentJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    decoder: Callable[..., object],
    said: str,
) -> None:
    monkeypatch.setattr(labeller, "decode_for_labels", decoder)
    actor = ScanSegmenter(job)
    for name, state in (("a.las", DONE), ("bad.las", QUARANTINED), ("b.las", DONE)):
        record = run(actor, write_las(tmp_path / name, 300))
        assert record["state"] == state, record
        if state == QUARANTINED:
            assert said in record["error"]
            assert "bad.las" in record["error"]
    assert sorted(p.name for p in (tmp_path / "labelled").glob("*.las")) == ["a.las", "b.las"]


@pytest.mark.parametrize("make", [*broken_files.LETHAL, *broken_files.PANICS], ids=lambda f: f.__name__)
def test_the_worst_files_are_one_sentence_each(
    job: SegmentJob, tmp_path: Path, make: broken_files.Writer
) -> None:
    record = run(ScanSegmenter(job), bad := make(tmp_path))
    assert record["state"] == QUARANTINED
    assert bad.name in record["error"]
    assert record["error"].endswith(".")
    assert "unexpectedly" not in record["error"]


@pytest.mark.parametrize("features", [("xyz", "height", "intensity"), ("xyz", "rgb")], ids="-".join)
def test_the_rehearsal_counts_for_nothing_and_leaves_nothing(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: tuple[str, ...]
) -> None:
    checkpoint = make_predictor(voxel_size_m=1.0).checkpoint
    network = replace(checkpoint.network, in_channels=num_channels(features))
    drawn = replace(checkpoint, network=network, state=DeepGCN(network).state_dict(), features=features)
    job = published(job, drawn)
    (tmp_path / "parts").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "parts"))
    rehearsed = []
    monkeypatch.setattr(labeller, "label_points", lambda *a, **k: rehearsed.append(label_points(*a, **k)))
    ScanSegmenter(job)
    assert len(rehearsed) == 1
    assert not list((tmp_path / "parts").glob("pointloom-*"))
    assert not (tmp_path / "labelled").exists()


@pytest.mark.parametrize("when", ["before the actor begins", "before it is started again"])
def test_no_label_comes_from_another_checkpoint_than_that_of_the_plan(
    job: SegmentJob, tmp_path: Path, when: str
) -> None:
    scan = write_las(tmp_path / "a.las", 300)
    if when == "before it is started again":
        assert run(ScanSegmenter(job), scan)["state"] == DONE
        (tmp_path / "labelled" / "a.las").unlink()
    save_checkpoint(job.checkpoint, make_predictor(seed=1, voxel_size_m=1.0).checkpoint)
    record = run(ScanSegmenter(job), scan)
    assert record["state"] == CANNOT_BEGIN
    assert "was replaced after this run had begun" in record["error"]
    assert not (tmp_path / "labelled" / "a.las").exists()


@pytest.mark.parametrize("make", [arrays, scanned, annotated])
def test_scans_of_other_formats_are_labelled_and_bad_ones_quarantined(
    job: SegmentJob, tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    checkpoint = make_predictor(voxel_size_m=1.0).checkpoint
    network = replace(checkpoint.network, in_channels=num_channels(("xyz", "rgb")))
    coloured = replace(
        checkpoint, network=network, state=DeepGCN(network).state_dict(), features=("xyz", "rgb")
    )
    job = published(job, coloured)
    scan, actor = make(tmp_path), ScanSegmenter(job)
    record = run(actor, scan)
    assert record["state"] == DONE, record["error"]
    assert record["path"] == output_name(scan.name)
    labelled, before = read_cloud(str(tmp_path / "labelled" / record["path"])), read_cloud(str(scan))
    np.testing.assert_array_equal(labelled.xyz, before.xyz)
    assert record["points_in"] == record["points_out"] == len(before)
    assert record["details"]["proof"]["points"] == len(before)
    assert sum(record["details"]["code_counts"].values()) == len(before)
    assert (tmp_path / "labelled" / "tiles" / f"{scan.name}.parquet").exists()
    if make is scanned:
        assert any("invalid are left out" in note for note in record["details"]["notes"])
    file = scan if scan.is_file() else scan / "Annotations" / "wall_1.txt"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if scan.is_file() else b"no numbers at all\n" * 30)
    if scan.is_dir():
        (scan / "Annotations" / "ceiling_1.txt").unlink()
    bad = run(actor, scan)
    assert bad["state"] == QUARANTINED
    assert scan.name in bad["error"]
    assert "unexpectedly" not in bad["error"]


def test_doubtful_points_are_no_floor(job: SegmentJob) -> None:
    checkpoint = make_predictor(voxel_size_m=1.0).checkpoint
    rooms = LabelScheme("rooms", PRESETS["s3dis"].classes[: len(checkpoint.label_scheme)])
    save_checkpoint(job.checkpoint, replace(checkpoint, label_scheme=rooms))
    with pytest.raises(PointloomError, match="code 1, which is the class 'floor'"):
        planned(job.checkpoint, job.out, min_confidence=0.5)
    planned(job.checkpoint, job.out, min_confidence=0.5, codes=(("floor", 101),))
    planned(job.checkpoint, job.out)


def test_a_scan_that_takes_too_long_to_decode(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labeller, "decode_for_labels", lethal_decoders.hang)
    record = run(ScanSegmenter(replace(job, time_limit_s=0.5)), write_las(tmp_path / "bad.las", 300))
    assert "took more than the limit" in record["error"]


def test_neighbours_give_context_and_those_that_cannot_be_read_do_not(
    job: SegmentJob, tmp_path: Path
) -> None:
    scan, beside = write_las(tmp_path / "a.las", 300), write_las(tmp_path / "b.las", 300, seed=1)
    bad = broken_files.not_a_las(tmp_path)
    actor = ScanSegmenter(job)
    alone = run(actor, scan)
    together = run(actor, scan, {beside.name: str(beside), bad.name: str(bad)})
    assert alone["state"] == together["state"] == DONE
    assert alone["points_in"] == together["points_in"] == 300
    assert alone["details"]["mean_confidence"] != together["details"]["mean_confidence"]


def test_smoothing_reaches_the_network_and_asks_for_new_labels(job: SegmentJob, tmp_path: Path) -> None:
    x, y, z = np.rint(CLOUD.xyz.T * 1000 - np.array([[652e6], [6862e6], [0]])).astype(int)
    scan = write_las(tmp_path / "a.las", len(CLOUD), X=x, Y=y, Z=z, intensity=CLOUD.attributes["intensity"])
    smooth = replace(job, options=LabelOptions(smoothing=8))
    assert smooth.key("content", []) != job.key("content", [])
    rough, even = (run(ScanSegmenter(each), scan)["details"] for each in (job, smooth))
    assert sum(even["class_counts"].values()) == sum(rough["class_counts"].values())
    assert even["class_counts"] != rough["class_counts"], "where classes meet, the nearest points decide"


def test_storage_that_is_away_is_no_fault_of_the_scan(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)
    (tmp_path / "file").write_text("where a folder should be")
    scan = write_las(tmp_path / "a.las", 300)
    record = run(ScanSegmenter(replace(job, out=str(tmp_path / "file" / "out"))), scan)
    assert record["state"] == UNREACHED
    assert "cannot write" in record["error"]
    record = run(ScanSegmenter(job), tmp_path / "gone.las")
    assert record["state"] == UNREACHED
    assert not list((tmp_path / "labelled").rglob("*.json")), "the ledger says nothing of it"
    assert run(ScanSegmenter(job), scan)["state"] == DONE


def test_storage_that_comes_back_is_waited_for(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    pauses: list[float] = []

    def mend(seconds: float) -> None:
        pauses.append(seconds)
        (tmp_path / "file").unlink()

    monkeypatch.setattr(outage.time, "sleep", mend)
    record = run(
        ScanSegmenter(replace(job, out=str(tmp_path / "file" / "out"))), write_las(tmp_path / "a.las", 300)
    )
    assert record["state"] == DONE
    assert len(pauses) == 1


def test_a_writer_that_dies_ends_its_scan_only(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labeller, "write_labels", lethal_decoders.crash)
    record = run(ScanSegmenter(job), write_las(tmp_path / "bad.las", 300))
    assert record["state"] == QUARANTINED
    assert "its decoder crashed" in record["error"]


def test_a_scan_unlike_the_training_is_labelled_with_a_warning_or_quarantined(
    job: SegmentJob, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(job.checkpoint)
    dense = Seen(Range(500.0, 600.0, 700.0), {"intensity": Range(0.0, 9.0, 10.0)})
    job = published(job, replace(checkpoint, seen=dense))
    scan = write_las(tmp_path / "a.las", 300)
    record = run(ScanSegmenter(job), scan)
    assert record["state"] == DONE
    density, intensity = record["details"]["drift"]
    assert "points per m²" in density
    assert "values of intensity" in intensity
    record = run(ScanSegmenter(replace(job, quarantine_drift=True)), scan)
    assert record["state"] == QUARANTINED
    assert "unlike what the network was trained on" in record["error"]
    assert "a.las" in record["error"]
    assert record["details"]["drift"] == [density, intensity]
    assert replace(job, quarantine_drift=True).key("a", []) != job.key("a", [])


@pytest.mark.parametrize("kind", [MemoryError, RuntimeError, AssertionError])
def test_what_nobody_foresaw_ends_its_scan_only_and_its_traceback_is_kept(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    actor = ScanSegmenter(job)
    network = actor._labeller.predictor.network

    def fail(*_: Any) -> None:
        raise kind("out of memory,\nsays the network.")

    hook = network.register_forward_pre_hook(fail)
    record = run(actor, write_las(tmp_path / "a.las", 300))
    assert record["state"] == QUARANTINED
    assert record["error"].endswith(
        f"failed unexpectedly ({kind.__name__}: out of memory, says the network)."
    )
    assert "a.las" in record["error"]
    assert "in fail" in record["details"]["traceback"]
    hook.remove()
    assert run(actor, write_las(tmp_path / "b.las", 300))["state"] == DONE


def test_a_scratch_disk_that_is_full_or_gone_is_no_fault_of_the_scan(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)
    scan = write_las(tmp_path / "a.las", 3000)
    with no_room_beyond(10_000):  # which the actor's isolated process inherits
        record = run(ScanSegmenter(job), scan)
    assert record["state"] == UNREACHED
    assert "File too large; make room there" in record["error"]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "parts"))
    (tmp_path / "parts").mkdir()
    actor = ScanSegmenter(job)
    (tmp_path / "parts").rmdir()
    record = run(actor, scan)
    assert record["state"] == UNREACHED
    assert "No such file or directory" in record["error"]
    (tmp_path / "parts").mkdir()
    assert run(actor, scan)["state"] == DONE


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param("", id="simulated"),
        pytest.param(
            LIDARHD, marks=pytest.mark.skipif(not [*REAL.glob(LIDARHD)], reason=f"{REAL} is not here")
        ),
    ],
)
def test_a_wrong_unit_is_said_or_quarantined_whatever_the_features(
    job: SegmentJob, tmp_path: Path, pattern: str
) -> None:
    first, second = sorted(REAL.glob(pattern))[:2] if pattern else simulated(tmp_path)
    looks = run(ScanSegmenter(job), first)["details"]
    assert looks["drift"] == [], "this checkpoint knows nothing"
    job = published(job, replace(read_checkpoint(job.checkpoint), seen=Seen.from_dict(looks["seen"])))
    assert Seen.from_dict(looks["seen"]).delivered is not None
    warning, strict = ScanSegmenter(job), ScanSegmenter(replace(job, quarantine_drift=True))
    right = run(strict, second)
    assert (right["state"], right["details"]["drift"]) == (DONE, [])
    for wrong in ("feet taken for metres", "metres taken for feet"):
        scan = miswritten(second, tmp_path / "wrong" / f"{wrong}.las", wrong)
        warned = run(warning, scan)
        assert warned["state"] == DONE
        assert f"likely {wrong}" in warned["details"]["drift"][0]
        refused = run(strict, scan)
        assert refused["state"] == QUARANTINED
        assert f"likely {wrong}" in refused["error"]
        assert refused["details"] == {key: warned["details"][key] for key in ("seen", "drift")}


def test_nothing_is_published_by_a_run_that_has_lost_its_lock(
    job: SegmentJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PAUSE_SECONDS", 0.0)
    with held(job.out) as lock:
        actor = ScanSegmenter(replace(job, lock=lock))
        assert run(actor, write_las(tmp_path / "a.las", 300))["state"] == DONE
        files.delete(lock.claim)
        record = run(actor, write_las(tmp_path / "b.las", 300))
    assert record["state"] == UNREACHED
    assert "was lost" in record["error"]
    assert sorted(path.name for path in (tmp_path / "labelled").rglob("*") if path.is_file()) == [
        "a.las", "a.las.json", "a.las.parquet",
    ]  # fmt: skip


@pytest.mark.parametrize("cloud_format", ["same", "parquet"])
@pytest.mark.parametrize("noise_code", [None, 7])
def test_noise_keeps_its_class_and_is_counted(
    tmp_path: Path, cloud_format: str, noise_code: int | None
) -> None:
    """A point far below all others that nobody marked, and one of class 18, in the labelled cloud and the record."""
    save_checkpoint(str(tmp_path / "checkpoint"), make_predictor(voxel_size_m=1.0).checkpoint)
    job = planned(
        str(tmp_path / "checkpoint"), str(tmp_path / "out"), format=cloud_format, noise_code=noise_code
    )
    rng = np.random.default_rng(0)
    flat = write_las(tmp_path / "flat.las", 9000, withheld=0, Z=rng.integers(0, 900, 9000))
    middle = np.array([[652_025.0, 6_862_025.0, -40.0]])
    low = with_points(flat, tmp_path / "low.las", middle, code=5)
    scan = with_points(low, tmp_path / "scan.las", middle + [0, 0, 500], code=18)  # noqa: RUF005
    record = run(ScanSegmenter(job), scan)
    assert record["state"] == DONE, record
    assert record["details"]["noise"] == {"marked": 1, "outliers": 1}
    assert sum(record["details"]["class_counts"].values()) == 9000
    assert [note for note in record["details"]["notes"] if "no context" in note] == describe_noise(1, 1)
    cloud, confidence = read_labelled(f"{job.out}/{record['path']}")
    assert cloud.attributes["classification"][9000:].tolist() == [noise_code or 5, 18]
    assert confidence is not None
    assert confidence[9000:].tolist() == [0, 0]
    assert confidence[:9000].min() > 0

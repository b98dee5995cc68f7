"""What the morning's page is made from: tiles of many scans, counted and drawn, and what lies on the map to review."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyproj import CRS

from models.predictor import Predictor
from models.weights.checkpoint import read_checkpoint
from pointcloud.blocks.decoded import decode_scan
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labelling.label_points import label_points
from pointcloud.labelling.measures import summarise
from pointcloud.labelling.options import LabelOptions
from pointcloud.quality.doubtful_tiles import LEAST_POINTS, TileDoubts
from pointcloud.quality.review_polygons import MOST_CLUSTERS
from pointcloud.storage import geoparquet, ledger
from tasks.report.salvage import Salvage
from tasks.segmenting import morning_report
from tests.support.clouds import real_files

LOG = logging.getLogger(__name__)
NAMES = ("ground", "building")
CONFIG = BlockConfig(tile_size_m=8.0, voxel_size_m=0.5, halo_m=0.0)


def write_tiles(folder: Path, scan: str, confidences: list[float], east: float) -> ledger.Record:
    """A scan of one row of tiles, 40 points in each."""
    extent = np.array([[east, 0.0, 0.0], [east + 8.0 * len(confidences), 8.0, 1.0]])
    doubts = TileDoubts(scan, CONFIG, CRS(2154), extent, 2)
    rng = np.random.default_rng(0)
    for n, confidence in enumerate(confidences):
        xyz = rng.uniform((east + 8 * n, 0, 0), (east + 8 * n + 8, 8, 1), (40, 3))
        labels = {"classes": np.zeros(40, np.int16), "confidence": np.full(40, confidence, np.float32)}
        doubts.add(xyz, np.floor(xyz / 0.5).astype(np.int64), np.ones(40, np.int64), labels)
    doubts.write(str(folder / f"{scan}.parquet"))
    return ledger.Record(
        stage="segment",
        scan=scan,
        key="k",
        state=ledger.DONE,
        details={"mean_confidence": doubts.confidence},
    )


def job(folder: Path) -> Any:
    return SimpleNamespace(out=str(folder), tiles=lambda scan: str(folder / f"{scan}.parquet"))


def test_the_tiles_of_all_scans_are_gathered(tmp_path: Path) -> None:
    done = [
        write_tiles(tmp_path, "a.laz", [0.5, 0.9, 0.7, 0.8, 0.4], 0.0),
        ledger.Record(stage="segment", scan="before there were tiles.laz", key="k", state=ledger.DONE),
        write_tiles(tmp_path, "b.laz", [0.95], 80.0),
    ]
    found = morning_report._gather(done, job(tmp_path), 0.6, NAMES, Salvage(LOG))
    assert [(tile.box, tile.name) for tile in found.tiles[:2]] == [
        ((0.0, 0.0, 8.0, 8.0), "a.laz"), ((8.0, 0.0, 16.0, 8.0), "a.laz")
    ]  # fmt: skip
    assert [tile.confidence for tile in found.tiles] == pytest.approx([0.5, 0.9, 0.7, 0.8, 0.4, 0.95])
    assert [(scan.box, scan.name) for scan in found.scans] == [
        ((0.0, 0.0, 40.0, 8.0), "a.laz"), ((80.0, 0.0, 88.0, 8.0), "b.laz")
    ]  # fmt: skip
    assert [scan for _, scan in found.worst] == ["a.laz"] * 3 + ["b.laz"]
    assert [c for c, _ in found.worst] == pytest.approx([0.4, 0.5, 0.7, 0.95])
    assert [table["i"].to_pylist() for table in found.to_review] == [[0, 4], []]
    assert set(found.crs) == {"a.laz", "b.laz"}
    assert [place.tile for place in morning_report._worst_tiles(found, job(tmp_path))] == [
        (4, 0),
        (0, 0),
        (2, 0),
        (10, 0),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("scan", real_files("lidarhd_50m/*77050*.laz"))
def test_a_real_scan_has_something_to_review_though_every_tile_is_sure(scan: Path, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(str(Path(__file__).parents[3] / "pretrained" / "airborne"))
    scheme, config = checkpoint.label_scheme, checkpoint.block_config
    decoded = decode_scan(scan.name, str(scan), tmp_path / "scan.arrow", config, every_point=True)
    doubts = TileDoubts(scan.name, config, decoded.crs, decoded.extent, len(scheme))
    label_points(
        decoded,
        [],
        config,
        Predictor(checkpoint).logits,
        partial(summarise, options=LabelOptions()),
        doubts.add,
    )
    doubts.write(str(tmp_path / f"{scan.name}.parquet"))
    record = ledger.Record(
        stage="segment", scan=scan.name, key="k", state=ledger.DONE, details={"mean_confidence": 0.9}
    )
    (table,) = morning_report._gather([record], job(tmp_path), 0.6, scheme.names, Salvage(LOG)).to_review
    assert min(morning_report.read_tiles(job(tmp_path).tiles(scan.name))["confidence"].to_pylist()) > 0.6
    assert 0 < len(table) <= MOST_CLUSTERS
    assert min(table["doubtful_points"].to_pylist()) >= LEAST_POINTS


def test_tiles_that_nobody_draws_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(morning_report, "_MOST_TILES", 3)
    done = [write_tiles(tmp_path, f"{n}.laz", [0.5, 0.9], 16.0 * n) for n in range(4)]
    found = morning_report._gather(done, job(tmp_path), 0.6, NAMES, Salvage(LOG))
    assert len(found.tiles) == 4, "one more than are drawn, so that it shows"
    assert len(found.scans) == len(found.to_review) == 4


def test_scans_unlike_the_training_are_to_be_reviewed_as_quarantined_ones_are() -> None:
    def record(scan: str, **said: Any) -> ledger.Record:
        return ledger.Record(
            stage="segment",
            scan=scan,
            key="k",
            state=ledger.QUARANTINED if "error" in said else ledger.DONE,
            **said,
        )

    records = [
        record("torn.laz", error="It is torn."),
        record("thin.laz", details={"drift": ["It is thin.", "It is dark."]}),
        record("like.laz", details={"drift": []}),
        record("old.laz"),
        record("nowhere.laz", error="It lies nowhere."),
    ]
    box = (0.0, 0.0, 8.0, 8.0)
    boxes = {r.scan: box for r in records[:-1]}
    headers: Any = {r.scan: SimpleNamespace(crs=CRS(2154)) for r in records}
    rows = [
        row
        for table in morning_report._whole_scans(records, boxes, headers, Salvage(LOG))
        for row in table.to_pylist()
    ]
    assert [(row["scan"], row["reason"]) for row in rows] == [
        ("torn.laz", "It is torn."), ("thin.laz", "It is thin. It is dark.")
    ]  # fmt: skip
    assert rows[0]["footprint"] == geoparquet.rectangle(box)


def test_a_scan_whose_tiles_are_damaged_is_named_and_the_others_are_there(tmp_path: Path) -> None:
    done = [write_tiles(tmp_path, f"{n}.laz", [0.5, 0.9], 16.0 * n) for n in range(4)]
    whole = (tmp_path / "1.laz.parquet").read_bytes()
    (tmp_path / "1.laz.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "2.laz.parquet").write_bytes(b"")
    table = pq.read_table(tmp_path / "3.laz.parquet")
    unknown = table.schema.metadata | {b"geo": b'{"columns": {"footprint": {"crs": {"type": "no CRS"}}}}'}
    pq.write_table(table.replace_schema_metadata(unknown), tmp_path / "3.laz.parquet")
    salvage = Salvage(LOG)
    found = morning_report._gather(done, job(tmp_path), 0.6, NAMES, salvage)
    assert list(found.crs) == ["0.laz"]
    assert [sentence.partition(" could")[0] for sentence in sorted(salvage.failures)] == [
        f"the map of scan '{n}.laz'" for n in (1, 2, 3)
    ]

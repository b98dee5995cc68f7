"""The manifest is sums over the records of scans."""

from __future__ import annotations

import pytest

from pointcloud.dataset.manifest import manifest_of
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.splits import SplitRule
from pointcloud.dataset.store import Shard
from pointcloud.storage.ledger import DONE, QUARANTINED, UNREACHED, Record
from tests.support.clouds import SCHEME, SMALL

CONFIG = PreprocessConfig(block_config=SMALL, scheme=SCHEME, rule=SplitRule())


def done(scan: str, attributes: list[str], moments: dict[str, list[float]], counts: list[int]) -> Record:
    details = {
        "attributes": attributes, "moments": moments, "num_blocks": {"train": 2}, "class_counts": {"train": counts},
    }  # fmt: skip
    return Record(
        stage="preprocess", scan=scan, key="k", state=DONE, path=f"shards/{scan}.parquet", details=details
    )


def test_sums_of_scans_make_the_manifest() -> None:
    records = {
        "b.las": done(
            "b.las", ["intensity"], {"height": [2, 4.0, 10.0], "intensity": [2, 6.0, 20.0]}, [1, 2]
        ),
        "a.las": done("a.las", [], {"height": [2, 0.0, 0.0]}, [3, 4]),
        "bad.las": Record(
            stage="preprocess", scan="bad.las", key="k", state=QUARANTINED, error="It is torn."
        ),
        "far.las": Record(stage="preprocess", scan="far.las", key="", state=UNREACHED, error="It is away."),
    }
    manifest = manifest_of(records, CONFIG)
    assert manifest.shards == tuple(
        Shard(f"shards/{scan}.parquet", scan, {"train": 2}) for scan in ("a.las", "b.las")
    )
    assert manifest.class_counts == {"train": [4, 6]}
    assert manifest.num_blocks("train") == 4
    assert manifest.statistics.mean == {"height": 1.0, "intensity": 3.0}
    assert manifest.statistics.std["height"] == pytest.approx((10 / 4 - 1) ** 0.5)
    assert manifest.attributes == ("intensity",)
    assert manifest.filled == {"intensity": 3}
    assert manifest.quarantined == {"bad.las": "It is torn.", "far.las": "It is away."}
    assert (manifest.block_config, manifest.label_scheme) == (SMALL, SCHEME)
    assert manifest.split_rule == SplitRule().to_dict()

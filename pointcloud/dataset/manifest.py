"""From the ledger's records of scans to the manifest of their dataset, by sums; no file is read or written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pointcloud.blocks.decoded import DecodedScan
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.blocks.ground import describe_noise
from pointcloud.crs import name_of
from pointcloud.dataset.filling import values_to_fill
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.shard import ShardSums
from pointcloud.dataset.store import Manifest, Shard
from pointcloud.labels import IGNORE
from pointcloud.storage.ledger import DONE, Record


def details_of(
    decoded: DecodedScan, neighbours: Sequence[DecodedScan], sums: ShardSums, config: PreprocessConfig
) -> dict[str, Any]:
    """What the record of a scan that was cut remembers of it, for the manifest and for people."""
    ignored = config.scheme.to_labels(decoded.cells[:, 2], decoded.scan) == IGNORE
    codes: dict[int, int] = {}
    if "classification" in decoded.attributes:
        for code, count in zip(
            decoded.cells[ignored, 2].tolist(), decoded.cell_points[ignored].tolist(), strict=True
        ):
            codes[code] = codes.get(code, 0) + count
    return {
        **sums.to_dict(),
        "attributes": sorted(set(decoded.attributes) - {"classification"}),
        "codes_ignored": {str(code): count for code, count in sorted(codes.items())},
        "crs": name_of(decoded.crs) if decoded.crs is not None else None,
        "extent": decoded.extent.tolist(),
        "neighbours": [other.scan for other in neighbours],
        "noise": {"marked": decoded.num_marked, "outliers": sums.num_outliers},
        "notes": [*decoded.notes, *describe_noise(decoded.num_marked, sums.num_outliers)],
    }


def manifest_of(records: Mapping[str, Record], config: PreprocessConfig) -> Manifest:
    """The manifest of the dataset that scans make.

    Args:
        records: scan -> its record; at least one is done, and has the details of `details_of`.
        config: how they were cut.
    """
    done = [record for _, record in sorted(records.items()) if record.state == DONE]
    attributes = [set(record.details["attributes"]) for record in done]
    moments = _sum(record.details["moments"] for record in done)
    statistics = FeatureStatistics.from_moments(dict(sorted(moments.items())))
    class_counts = _sum(record.details["class_counts"] for record in done)
    return Manifest(
        block_config=config.block_config,
        label_scheme=config.scheme,
        split_rule=config.rule.to_dict(),
        shards=tuple(
            Shard(path=record.path, scan=record.scan, num_blocks=record.details["num_blocks"])
            for record in done
        ),
        statistics=statistics,
        class_counts={split: counts.tolist() for split, counts in sorted(class_counts.items())},
        attributes=tuple(sorted(set.union(*attributes))),
        quarantined={scan: record.error for scan, record in sorted(records.items()) if record.state != DONE},
        filled=values_to_fill(attributes, statistics),
    )


def _sum(of_scans: Iterable[Mapping[str, Sequence[float]]]) -> dict[str, np.ndarray]:
    """By name, over all scans that have it."""
    sums: dict[str, np.ndarray] = {}
    for of_scan in of_scans:
        for name, values in of_scan.items():
            sums[name] = sums.get(name, 0) + np.array(values)
    return sums

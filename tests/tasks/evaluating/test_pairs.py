"""Pairing: by name, whatever the format; what belongs to nothing, or to several, is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pointcloud.errors import PointloomError
from tasks.evaluating.pairs import find_pairs
from tests.support.clouds import write_las
from tests.support.scan_files import ply_bytes


def written(folder: Path, *names: str) -> list[str]:
    """The folder, with clouds of these names in it."""
    folder.mkdir(exist_ok=True)
    columns = {name: np.zeros(3) for name in ("x", "y", "z", "classification")}
    for name in names:
        path = folder / name
        if path.suffix == ".parquet":
            pq.write_table(pa.table(columns), path)
        elif path.suffix == ".ply":
            path.write_bytes(ply_bytes(np.rec.fromarrays(list(columns.values()), names=list(columns))))
        else:
            write_las(path, 3)
    return [str(folder)]


def test_the_format_is_no_part_of_a_name(tmp_path: Path) -> None:
    labelled = written(tmp_path / "labelled", "a.ply", "b.laz")
    truth = written(tmp_path / "truth", "a.las", "b.parquet", "c.las")
    one, other = find_pairs(labelled, truth, [])
    assert (one.name, one.truth, one.against) == ("a.ply", str(tmp_path / "truth/a.las"), None)
    assert other.delivered == other.truth == str(tmp_path / "truth/b.parquet")
    delivered = written(tmp_path / "delivered", "a.laz", "b.las")
    one, other = find_pairs(labelled, truth, delivered, labelled)
    assert (one.delivered, one.against) == (str(tmp_path / "delivered/a.laz"), one.labelled)


def test_what_belongs_to_nothing_is_named(tmp_path: Path) -> None:
    labelled, truth = written(tmp_path / "labelled", "a.laz"), written(tmp_path / "truth", "b.laz")
    with pytest.raises(PointloomError, match=r"no truth for .*a\.laz"):
        find_pairs(labelled, truth, [])
    with pytest.raises(PointloomError, match=r"no delivered scan for .*a\.laz"):
        find_pairs(labelled, labelled, truth)
    with pytest.raises(PointloomError, match=r"no other version for .*a\.laz"):
        find_pairs(labelled, labelled, [], truth)


def test_of_two_truths_that_of_the_same_format_is_taken_and_else_both_are_named(tmp_path: Path) -> None:
    truth = written(tmp_path / "truth", "a.ply", "a.laz")
    labelled = written(tmp_path / "labelled", "a.laz")
    (pair,) = find_pairs(labelled, truth, [])
    assert pair.truth == str(tmp_path / "truth/a.laz")
    other = written(tmp_path / "other", "a.parquet")
    with pytest.raises(PointloomError, match=r"more than one truth, .*a\.laz.* and .*a\.ply"):
        find_pairs(other, truth, [])
    with pytest.raises(PointloomError, match="are both the labelled cloud of one scan"):
        find_pairs([*labelled, *other], truth, [])


def test_a_table_without_points_is_no_cloud(tmp_path: Path) -> None:
    pq.write_table(pa.table({"scan": ["a"]}), tmp_path / "a.parquet")
    truth = written(tmp_path / "truth", "a.laz")
    with pytest.raises(PointloomError, match="no labelled cloud among"):
        find_pairs([str(tmp_path / "*.parquet")], truth, [])

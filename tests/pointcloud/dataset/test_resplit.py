"""Another split of the same blocks is the one that cutting them under that rule would have given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.scan_training import cut
from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.dataset import store
from pointcloud.dataset.preprocessing import PreprocessConfig
from pointcloud.dataset.resplit import SplitBlocks, is_written, open_blocks, resplit, sum_places, write_split
from pointcloud.dataset.splits import SPLITS, TEST, TRAIN, UNUSED, VAL, SplitRule
from pointcloud.errors import SchemaError
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import PRESETS
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from pointcloud.storage.inputs import Source

CONFIG = BlockConfig(tile_size_m=6.0, halo_m=1.0, voxel_size_m=1.0, overlap=2)
STRIP = SplitRule(val_fraction=0.3)
RULES = {
    "squares": SplitRule(val_fraction=0.2, area_size_m=12.0, num_folds=3, fold=1),
    "strips": SplitRule(val_fraction=0.25, test_fraction=0.2, seed=1),
    "scans": SplitRule(val_fraction=0.0, test_scans=("*_0_0*",), val_scans=("*_1_0*",)),
}


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Three tiles side by side whose edges are not those of the grid, so that blocks cross from one into the next."""
    folder = tmp_path_factory.mktemp("scans")
    paths = write_survey(SurveyConfig(seed=3, tile_size_m=26.0, tiles=(3, 1), points_per_m2=3.0), folder)
    return [Source(str(path), f"tile_{n}_0.laz") for n, path in enumerate(sorted(paths))]


def cut_by(scans: list[Source], rule: SplitRule, folder: Path) -> store.Manifest:
    manifest = cut(
        scans, PreprocessConfig(block_config=CONFIG, scheme=PRESETS["asprs-basic"], rule=rule), folder
    )
    store.write_manifest(str(folder), manifest)
    return manifest


@pytest.fixture(scope="module")
def strips(scans: list[Source], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A blocks dataset whose shards hold the split by strips."""
    folder = tmp_path_factory.mktemp("blocks")
    cut_by(scans, STRIP, folder)
    return str(folder)


def divided(dataset: str, rule: SplitRule) -> SplitBlocks:
    manifest = store.read_manifest(dataset)
    return resplit(dataset, manifest, sum_places(dataset, manifest), rule)


def core_points(block: Block) -> set[tuple[str, int]]:
    """Scan and place in it of every point in the core."""
    index = block.point_index[block.is_core].tolist()
    if block.source is None:
        return {(block.scan, i) for i in index}
    return {(block.scans[n], i) for n, i in zip(block.source[block.is_core].tolist(), index, strict=True)}


def base_splits(blocks: SplitBlocks) -> dict[tuple[object, ...], str]:
    return {
        (b.scan, *b.tile): split
        for split in (*SPLITS, UNUSED)
        for b in blocks.read(split)
        if b.shift == (0, 0)
    }


@pytest.mark.parametrize("name", ["squares", "scans"])
def test_the_ground_is_split_as_if_it_were_cut_by_the_rule(
    name: str, scans: list[Source], strips: str, tmp_path: Path
) -> None:
    manifest = cut_by(scans, RULES[name], tmp_path)
    found, expected = divided(strips, RULES[name]), open_blocks(str(tmp_path))
    assert base_splits(found) == base_splits(expected)
    for split in (VAL, TEST):
        assert found.manifest.class_counts[split] == manifest.class_counts[split]
        assert found.manifest.num_blocks(split) == manifest.num_blocks(split) > 0
    # A shifted tile may reach into a neighbour's held-out ground, which the neighbour alone knows while it is cut.
    assert 0 < found.manifest.num_blocks(TRAIN) <= manifest.num_blocks(TRAIN)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_no_point_trains_and_is_held_out(rule: SplitRule, strips: str) -> None:
    blocks = divided(strips, rule)
    points = {split: [core_points(b) for b in blocks.read(split)] for split in SPLITS}
    assert all(points.values())
    seen = {split: set.union(*of_split) for split, of_split in points.items()}
    assert not seen[TRAIN] & (seen[VAL] | seen[TEST])
    assert not seen[VAL] & seen[TEST]


def test_a_scan_that_is_held_out_never_trains(scans: list[Source], tmp_path: Path) -> None:
    # Of tiles with too few points nothing is left, but a shifted tile above some of them may have enough.
    cutting = PreprocessConfig(block_config=CONFIG, scheme=PRESETS["asprs-basic"], rule=STRIP, min_points=85)
    store.write_manifest(str(tmp_path), cut(scans, cutting, tmp_path))
    blocks = divided(str(tmp_path), RULES["scans"])
    trained = {scan for block in blocks.read(TRAIN) for scan, _ in core_points(block)}
    assert trained == {"tile_2_0.laz"}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_counts_and_statistics_are_those_of_the_blocks_read(rule: SplitRule, strips: str) -> None:
    blocks = divided(strips, rule)
    columns: dict[str, list[np.ndarray]] = {"height": [], "intensity": []}
    for split in SPLITS:
        read = list(blocks.read(split))
        assert len(read) == blocks.manifest.num_blocks(split)
        labels = np.concatenate([b.label[b.is_core & (b.label >= 0)] for b in read if b.label is not None])
        counts = np.bincount(labels, minlength=len(blocks.manifest.label_scheme))
        assert blocks.manifest.class_counts[split] == counts.tolist()
        for block in read if split == TRAIN else ():
            columns["height"].append(block.height.astype(float))
            columns["intensity"].append(block.attributes["intensity"].astype(float))
    for name, values in columns.items():
        column = np.concatenate(values)
        assert blocks.manifest.statistics.mean[name] == pytest.approx(column.mean())
        assert blocks.manifest.statistics.std[name] == pytest.approx(column.std())


def test_a_split_file_gives_the_same_split_back(strips: str, tmp_path: Path) -> None:
    rule, uri = RULES["squares"], str(tmp_path / "fold.parquet")
    assert not is_written(uri, strips, rule)
    blocks = divided(strips, rule)
    write_split(uri, blocks)
    assert is_written(uri, strips, rule)
    assert not is_written(uri, strips, replace(rule, fold=2))
    again = open_blocks(strips, uri)
    assert again.splits == blocks.splits
    # JSON has lists for the rule's tuples.
    assert replace(again.manifest, split_rule={}) == replace(blocks.manifest, split_rule={})
    assert again.manifest.split_rule["fold"] == 1
    before = Path(uri).read_bytes()
    write_split(uri, blocks)
    assert Path(uri).read_bytes() == before


def test_a_split_of_other_blocks_is_refused(strips: str, scans: list[Source], tmp_path: Path) -> None:
    uri = str(tmp_path / "fold.parquet")
    write_split(uri, divided(strips, RULES["squares"]))
    cut_by(scans[:2], STRIP, tmp_path)
    with pytest.raises(SchemaError, match="splits other blocks"):
        open_blocks(str(tmp_path), uri)
    Path(uri).write_bytes(b"no Parquet")
    with pytest.raises(SchemaError, match="not a split file"):
        open_blocks(strips, uri)
    assert not is_written(uri, strips, RULES["squares"])


def test_statistics_of_a_constant_column_divide_by_one() -> None:
    found = FeatureStatistics.from_moments({"height": np.array([4.0, 8.0, 16.0])})
    assert (found.mean, found.std) == ({"height": 2.0}, {"height": 1.0})

"""Scans to shards without a scheduler: exact whatever files a survey comes in, and however it is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pointcloud.blocks.block import Block
from pointcloud.blocks.decoded import DecodedScan, decode_scan
from pointcloud.blocks.neighbours import find_neighbours, reading_order
from pointcloud.blocks.tiles import iterate_blocks, thin
from pointcloud.dataset.cutting import plan_cutting
from pointcloud.dataset.shard import write_shard
from pointcloud.dataset.splits import TEST, TRAIN, UNUSED, SplitRule
from pointcloud.dataset.store import Manifest, Shard, read_blocks
from pointcloud.errors import ScanError
from pointcloud.formats import las
from pointcloud.formats.reader import read_cloud, read_header
from pointcloud.grid.block_config import BlockConfig
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from tests.support import broken_files
from tests.support.clouds import SCHEME, SMALL, crop, write_las
from tests.support.noise import below_ground, with_points

CONFIG = replace(SMALL, voxel_size_m=0.5)
ALL = SplitRule(val_fraction=0.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated tile of 90 m × 90 m at Y = 6 600 000, wider than one region."""
    config = SurveyConfig(
        seed=5, tile_size_m=90.0, tiles=(1, 1), points_per_m2=2.0, origin=(652_000.0, 6_600_000.0)
    )
    (path,) = write_survey(config, tmp_path_factory.mktemp("whole"))
    return path


@pytest.fixture(scope="module")
def nine(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same as nine files whose borders run through tiles and voxels."""
    return crop(whole, tmp_path_factory.mktemp("nine"), [652_030.3, 652_061.1], [6_600_029.9, 6_600_060.2])


def decode_all(scans: Sequence[Path], config: BlockConfig, folder: Path) -> dict[str, DecodedScan]:
    folder.mkdir(parents=True, exist_ok=True)
    return {s.name: decode_scan(s.name, str(s), folder / f"{s.name}.arrow", config) for s in scans}


def preprocess(
    scans: Sequence[Path], config: BlockConfig, folder: Path, rule: SplitRule = ALL
) -> list[Block]:
    """The blocks of scans, from their shards."""
    neighbours = find_neighbours({s.name: read_header(str(s)) for s in scans}, config)
    decoded_scans, shards = decode_all(scans, config, folder / "decoded_scans"), []
    for name, decoded in decoded_scans.items():
        cutting = plan_cutting(
            decoded, [decoded_scans[other] for other in neighbours[name]], config, SCHEME, rule
        )
        sums = write_shard(str(folder / f"{name}.parquet"), cutting, decoded.crs)
        shards.append(Shard(f"{name}.parquet", name, dict(sums.num_blocks)))
    manifest = Manifest(config, SCHEME, {}, tuple(shards), None, {}, (), {})
    return [b for split in (TRAIN, UNUSED, TEST, "val") for b in read_blocks(str(folder), manifest, split)]


def by_place(blocks: Sequence[Block]) -> dict[tuple[object, ...], Block]:
    found: dict[tuple[object, ...], Block] = {(b.shift, b.tile, b.cell): b for b in blocks}
    assert len(found) == len(blocks), "a tile is in one block only"
    return found


def assert_same_points(one: Block, other: Block) -> None:
    """Equal in all but the files that points come from."""
    np.testing.assert_array_equal(one.origin, other.origin)
    np.testing.assert_array_equal(one.position, other.position)
    np.testing.assert_array_equal(one.height, other.height)
    np.testing.assert_array_equal(one.label, other.label)
    np.testing.assert_array_equal(one.is_core, other.is_core)
    assert set(one.attributes) == set(other.attributes)
    for name, values in one.attributes.items():
        np.testing.assert_array_equal(values, other.attributes[name])


@pytest.mark.parametrize("thinned", [True, False])
@pytest.mark.parametrize("overlap", [1, 2])
def test_one_file_and_nine_give_the_same_blocks(
    whole: Path, nine: list[Path], tmp_path: Path, overlap: int, thinned: bool
) -> None:
    config = replace(CONFIG, overlap=overlap, thin=thinned, max_points=100_000)
    assert len(nine) == 9
    one = by_place(preprocess([whole], config, tmp_path / "one"))
    other = by_place(preprocess(nine, config, tmp_path / "nine"))
    assert one.keys() == other.keys()
    if thinned:
        for place, block in one.items():
            assert_same_points(block, other[place])
    else:  # points of one place come file after file
        for place, block in one.items():
            assert sorted(map(tuple, block.position.tolist())) == sorted(
                map(tuple, other[place].position.tolist())
            )
    assert any(b.source is not None and len(np.unique(b.source)) > 1 for b in other.values())


def test_a_scan_cut_region_by_region_gives_the_blocks_of_the_cloud(whole: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, overlap=2)
    cloud = read_cloud(str(whole))
    expected = by_place(list(iterate_blocks(whole.name, cloud, thin(cloud, config), config, SCHEME)))
    found = by_place(preprocess([whole], config, tmp_path))
    assert len({b.tile[0] // 8 for b in found.values()}) > 1, "more than one region"
    assert found.keys() == expected.keys()
    for place, block in expected.items():
        assert_same_points(block, found[place])
        np.testing.assert_array_equal(block.point_index, found[place].point_index)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    xs=st.lists(st.floats(652_001.0, 652_089.0), max_size=2, unique=True).map(sorted),
    ys=st.lists(st.floats(6_600_001.0, 6_600_089.0), max_size=2, unique=True).map(sorted),
    halo=st.sampled_from([0.0, 1.3, 8.0]),
)
def test_every_point_is_in_exactly_one_tile(
    whole: Path, tmp_path_factory: pytest.TempPathFactory, xs: list[float], ys: list[float], halo: float
) -> None:
    folder = tmp_path_factory.mktemp("cropped")
    files = crop(whole, folder, xs, ys)
    config = replace(CONFIG, halo_m=halo, thin=False, max_points=100_000)
    blocks = preprocess(files, config, folder)
    found = []
    for block in blocks:
        source = np.zeros(len(block), int) if block.source is None else block.source
        scans = block.scans or (block.scan,)
        found += [
            (scans[s], i)
            for s, i in zip(source[block.is_core], block.point_index[block.is_core], strict=True)
        ]
    expected = [(file.name, i) for file in files for i in range(len(read_cloud(str(file))))]
    assert sorted(found) == sorted(expected)


def test_kept_and_thinned_are_all_points(whole: Path, nine: list[Path], tmp_path: Path) -> None:
    cloud = read_cloud(str(whole))
    kept = sum(int(b.is_core.sum()) for b in preprocess(nine, CONFIG, tmp_path))
    assert kept == len(thin(cloud, CONFIG))
    assert kept < len(cloud)
    decoded_scans = decode_all(nine, CONFIG, tmp_path / "again").values()
    assert sum(decoded.num_points for decoded in decoded_scans) == len(cloud)
    assert sum(int(decoded.cell_points.sum()) for decoded in decoded_scans) == len(cloud)


def test_coordinates_stay_within_the_scans_own_step(whole: Path, nine: list[Path], tmp_path: Path) -> None:
    clouds = {file.name: read_cloud(str(file)) for file in nine}
    (step,) = set(read_header(str(whole)).resolution.tolist())
    for block in preprocess(nine, CONFIG, tmp_path):
        scans = block.scans or (block.scan,)
        source = np.zeros(len(block), int) if block.source is None else block.source
        for n, scan in enumerate(scans):
            here = source == n
            xyz = clouds[scan].xyz[block.point_index[here]]
            assert np.abs(block.origin + block.position[here].astype(float) - xyz).max(initial=0) < step


def test_chunks_make_no_difference(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = by_place(preprocess([whole], CONFIG, tmp_path / "one"))
    monkeypatch.setattr(las, "CHUNK_POINTS", 997)
    other = by_place(preprocess([whole], CONFIG, tmp_path / "other"))
    assert one.keys() == other.keys()
    for place, block in one.items():
        assert_same_points(block, other[place])


def test_a_rerun_writes_the_same_bytes(nine: list[Path], tmp_path: Path) -> None:
    for name in ("one", "other"):
        preprocess(nine, replace(CONFIG, overlap=2), tmp_path / name)
    for shard in (tmp_path / "one").glob("*.parquet"):
        assert shard.read_bytes() == (tmp_path / "other" / shard.name).read_bytes()


def test_scans_of_different_times_stay_apart(nine: list[Path], tmp_path: Path) -> None:
    for block in preprocess(nine, replace(CONFIG, across_scans=False), tmp_path):
        assert block.source is None
        assert block.scans == ()


@pytest.mark.parametrize("rule", [
    SplitRule(val_fraction=0.0, test_scans=("?",)), SplitRule(val_fraction=0.3),
    SplitRule(val_fraction=0.3, area_size_m=16.0),
], ids=["scans", "strips", "squares"])  # fmt: skip
def test_no_shifted_tile_trains_on_what_a_neighbour_holds_out(
    nine: list[Path], tmp_path: Path, rule: SplitRule
) -> None:
    if rule.test_scans:
        rule = replace(rule, test_scans=(nine[4].name,))
    config, neighbours = replace(CONFIG, overlap=2), [path.name for path in nine]
    decoded_scans = decode_all(nine, config, tmp_path)
    plans = {
        name: plan_cutting(
            decoded_scans[name],
            [decoded_scans[other] for other in neighbours if other != name],
            config,
            SCHEME,
            rule,
        )
        for name in neighbours
    }
    held = {
        tile for plan in plans.values() for tile, split in plan.splits[0, 0].items() if split in ("val", TEST)
    }
    assert held
    trained = 0
    for plan in plans.values():
        for (a, b), splits in plan.splits.items():
            for (i, j), split in splits.items():
                if (a, b) != (0, 0) and split == TRAIN:
                    trained += 1
                    assert not held & {(i + di, j + dj) for di in range(1 + a) for dj in range(1 + b)}
    assert trained


def test_a_tile_of_scans_for_different_splits_serves_neither(nine: list[Path], tmp_path: Path) -> None:
    left, right = nine[0].name, nine[3].name  # side by side
    rule = SplitRule(val_fraction=0.0, test_scans=(right,))
    decoded_scans = decode_all([nine[0], nine[3]], CONFIG, tmp_path)
    splits = {
        name: plan_cutting(decoded_scans[name], [decoded_scans[other]], CONFIG, SCHEME, rule).splits[0, 0]
        for name, other in ((left, right), (right, left))
    }
    assert not splits[left].keys() & splits[right].keys()
    assert set(splits[left].values()) == {TRAIN, UNUSED}
    assert TEST in splits[right].values()
    tiles = {
        name: {tuple(t) for t in (decoded.cells[:, :2] // CONFIG.overlap).tolist()}
        for name, decoded in decoded_scans.items()
    }
    for tile, split in (splits[left] | splits[right]).items():
        assert (split == UNUSED) == (tile in tiles[left] & tiles[right])


def test_colours_of_eight_bits_are_sixteen_in_blocks(tmp_path: Path) -> None:
    path = write_las(tmp_path / "a.las", 300, point_format=7, red=255, green=np.arange(300) % 256, blue=0)
    config = replace(CONFIG, thin=False, max_points=4096)
    for block in preprocess([path], config, tmp_path):
        assert (block.attributes["red"] == 65535).all()
        np.testing.assert_array_equal(block.attributes["green"], block.point_index % 256 * 257)
    bare = write_las(tmp_path / "b.las", 300, point_format=7, red=0, green=0, blue=0)
    assert all("red" not in b.attributes for b in preprocess([bare], config, tmp_path))


def test_one_point(tmp_path: Path) -> None:
    (block,) = preprocess([broken_files.one_point(tmp_path)], CONFIG, tmp_path)
    assert block.is_core.tolist() == [True]


def test_duplicates_are_one_voxel(tmp_path: Path) -> None:
    path = write_las(tmp_path / "a.las", 70, X=1000, Y=2000, Z=3000)
    (block,) = preprocess([path], CONFIG, tmp_path)
    assert block.point_index.tolist() == [0]
    with pytest.raises(ScanError, match="70 points within"):
        preprocess([path], replace(CONFIG, thin=False, max_points=64), tmp_path)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("chunk", [10, 1_000_000])
def test_a_stray_point_makes_no_tiles(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(las, "CHUNK_POINTS", chunk)
    path = write_las(tmp_path / "a.las", 50, X=[*range(49), 2_000_000_000])
    with pytest.raises(ScanError, match="stray points are likely"):
        preprocess([path], replace(CONFIG, voxel_size_m=0.5), tmp_path)


def test_neighbours_and_their_order(nine: list[Path], tmp_path: Path) -> None:
    headers = {file.name: read_header(str(file)) for file in nine}
    config = replace(CONFIG, tile_size_m=4.0)
    far = write_las(tmp_path / "far.las", 20)
    headers["far.las"] = read_header(str(far))
    found = find_neighbours(headers, config)
    assert found["far.las"] == []
    centre = nine[4].name
    assert sorted(found[centre]) == sorted(file.name for file in nine if file.name != centre)
    for scan, others in found.items():
        assert scan not in others
        assert all(scan in found[other] for other in others)
    assert sorted(reading_order(headers)) == sorted(headers)


@pytest.mark.parametrize(("code", "withheld"), [(2, False), (7, False), (6, True)])
def test_noise_is_in_no_block_and_changes_none(
    whole: Path, tmp_path: Path, code: int, withheld: bool
) -> None:
    config = replace(CONFIG, ground_window_m=30.0)
    noisy = with_points(whole, tmp_path / whole.name, below_ground(whole, 40.0, 5), code, withheld)
    blocks = by_place(preprocess([noisy], config, tmp_path / "noisy"))
    expected = by_place(preprocess([whole], config, tmp_path / "plain"))
    assert blocks.keys() == expected.keys()
    for place, block in expected.items():
        for name in ("position", "height", "label", "point_index", "is_core"):
            np.testing.assert_array_equal(getattr(blocks[place], name), getattr(block, name))
    (decoded,) = decode_all([noisy], config, tmp_path / "again").values()
    cutting = plan_cutting(decoded, [], config, SCHEME, ALL)
    assert (decoded.num_marked, cutting.num_outliers) == ((0, 5) if code == 2 else (5, 0))

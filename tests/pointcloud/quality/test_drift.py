"""What is unlike the training is said with its figures; what is like it is let pass, edges and flat ground too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest

from pointcloud.blocks.block import Block
from pointcloud.crs import metres_per_unit
from pointcloud.errors import SchemaError
from pointcloud.formats.reader import read_cloud
from pointcloud.grid.block_config import BlockConfig
from pointcloud.quality.drift import Range, Sampler, Seen, seen_in, unlike_tiles
from pointcloud.storage import ledger
from tests.support.clouds import REAL, SMALL, cut, make_cloud
from tests.support.wrong_units import miswritten, simulated

FEATURES = ("xyz", "height", "intensity")


def look(blocks: Sequence[Block]) -> Sampler:
    sampler = Sampler(SMALL.tile_size_m)
    for block in blocks:
        sampler.add(block)
    return sampler


def blocks(num_points: int = 4000, seed: int = 0) -> list[Block]:
    return list(cut(make_cloud(num_points, seed=seed)))


def training() -> Seen:
    seen = look(blocks()).seen()
    assert seen is not None
    return seen


def changed(name: str, change: object) -> list[Block]:
    return [replace(b, attributes=b.attributes | {name: change(b.attributes[name])}) for b in blocks(seed=1)]


def test_more_of_the_same_is_no_drift() -> None:
    assert look(blocks(seed=1)).drift(training(), FEATURES) == []
    assert look(blocks(seed=2)[:3]).drift(training(), FEATURES) == []
    assert look([]).drift(training(), FEATURES) == []
    assert look([]).seen() is None


def test_thinner_and_denser_scans() -> None:
    for num_points in (400, 40_000):
        (said,) = look(blocks(num_points, seed=1)).drift(training(), ("xyz",))
        assert "points per m²" in said
        assert said.endswith(".")


def test_a_density_off_like_a_wrong_unit_is_said_to_be() -> None:
    metric = training()
    for factor, units, guessed in (
        (1 / 0.3048**2, (1.0, 1.0), True),
        (0.3048**2, (0.3048, 0.3048), True),
        (0.3048**2, (1.0, 1.0), False),  # metres are no feet
        (5.0, (1.0, 1.0), False),
    ):
        density = Range(*(factor * value for value in astuple(metric.density)))
        (said,) = look(blocks(seed=1)).drift(replace(metric, density=density), ("xyz",), units=units)
        assert ("wrong unit" in said) == guessed


def survey_of(pattern: str, folder: Path) -> tuple[Path, Path]:
    """Two scans: of shared/data, or for want of a pattern simulated."""
    return simulated(folder) if not pattern else tuple(sorted(REAL.glob(pattern))[:2])


def look_at(scan: Path, config: BlockConfig) -> tuple[Sampler, dict[str, float], tuple[float, float]]:
    cloud, sampler = read_cloud(str(scan)), Sampler(config.tile_size_m)
    for block in cut(cloud, config, None, scan.name):
        sampler.add(block)
    return sampler, {scan.name: len(cloud) / sampler.num_kept}, metres_per_unit(cloud.crs)


SURVEYS = [
    pytest.param("", id="simulated"),
    *(
        pytest.param(
            pattern,
            marks=pytest.mark.skipif(not [*REAL.glob(pattern)], reason=f"{REAL / pattern} is not here"),
        )
        for pattern in ("lidarhd_50m/*.laz", "lidarhd_50m/*77055*.laz")
    ),
]


@pytest.mark.parametrize("pattern", SURVEYS)
@pytest.mark.parametrize("voxel_size_m", [0.25, 0.4])
def test_a_wrong_unit_is_named_and_the_right_one_is_not(
    pattern: str, voxel_size_m: float, tmp_path: Path
) -> None:
    config = BlockConfig(voxel_size_m=0.4, max_points=8192) if voxel_size_m == 0.4 else BlockConfig()
    first, second = survey_of(pattern, tmp_path)
    sampler, thinning, _ = look_at(first, config)
    seen = sampler.seen(thinning)
    assert seen is not None
    assert seen.delivered is not None
    assert seen.delivered.middle > seen.density.middle
    sampler, thinning, units = look_at(second, config)
    # Neither the coordinates nor the returns alone show a unit.
    assert sampler.drift(seen, ("xyz", "returns"), thinning, units) == []
    for wrong in ("feet taken for metres", "metres taken for feet"):
        sampler, thinning, units = look_at(miswritten(second, tmp_path / "wrong.las", wrong), config)
        said = sampler.drift(seen, ("xyz", "returns"), thinning, units)
        assert f"likely {wrong}; check the unit" in said[0]


def test_heights_in_another_unit_than_the_ground(tmp_path: Path) -> None:
    _, second = simulated(tmp_path)
    sampler, thinning, _ = look_at(second, BlockConfig())
    seen = sampler.seen(thinning)
    assert seen is not None
    wrong = "feet taken for metres in heights alone"
    sampler, thinning, units = look_at(miswritten(second, tmp_path / "wrong.las", wrong), BlockConfig())
    (said,) = sampler.drift(seen, ("xyz",), thinning, units)
    assert f"likely {wrong}; check the vertical unit" in said
    assert sampler.drift(replace(seen, delivered=None), ("xyz",), thinning, units) == [said], (
        "a checkpoint from before knows heights"
    )


def test_what_was_delivered_is_told_by_the_ledger_of_the_dataset(tmp_path: Path) -> None:
    for scan, decoded in (("a.laz", 12_000), ("b.laz", 4_000)):
        ledger.write(
            str(tmp_path),
            ledger.Record(
                stage="preprocess",
                scan=scan,
                key="k",
                state=ledger.DONE,
                points_in=decoded,
                points_out=4000,
            ),
        )
    seen = {
        scan: seen_in(cut(make_cloud(4000), scan=scan), SMALL.tile_size_m, str(tmp_path)) for scan in "ab"
    }
    assert all(each is not None and each.delivered is None for each in seen.values()), "no such scans"
    a, b = (
        seen_in(cut(make_cloud(4000), scan=scan), SMALL.tile_size_m, str(tmp_path))
        for scan in ("a.laz", "b.laz")
    )
    assert a is not None
    assert b is not None
    assert a.delivered is not None
    assert b.delivered is not None
    assert a.density == b.density
    assert b.delivered.middle == pytest.approx(10.0, rel=0.15)
    assert a.delivered.middle == pytest.approx(3 * b.delivered.middle)


def test_points_so_few_that_most_ground_has_none_are_not_taken_for_more() -> None:
    cloud = make_cloud(4000, extent=(400.0, 400.0, 6.0))
    sampler = look(cut(cloud, BlockConfig()))
    seen = sampler.seen({"a.laz": len(cloud) / sampler.num_kept})
    assert seen is not None
    assert seen.delivered is not None
    assert seen.delivered.middle == pytest.approx(0.025, rel=0.2)


def test_intensities_on_another_scale_or_not_filled() -> None:
    known = training()
    (said,) = look(changed("intensity", lambda v: v * np.float32(3) + 70_000)).drift(known, FEATURES)
    assert "values of intensity are outside" in said
    (said,) = look(changed("intensity", np.zeros_like)).drift(known, FEATURES)
    assert "hardly varies" in said
    assert look(changed("intensity", np.zeros_like)).drift(known, ("xyz", "height")) == [], "not a feature"


def test_flat_ground_is_no_drift_and_towers_are() -> None:
    flat = [replace(b, height=b.height * 0) for b in blocks(seed=1)]
    assert look(flat).drift(training(), FEATURES) == []
    towers = [replace(b, height=b.height * 20 + 100) for b in blocks(seed=1)]
    (said,) = look(towers).drift(training(), FEATURES)
    assert "height" in said


def test_many_blocks_are_thinned_out_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointcloud.quality.drift._BLOCKS_KEPT", 8)
    seen = look(blocks() * 3).seen()
    assert seen is not None
    assert seen.density.middle == pytest.approx(training().density.middle, rel=0.3)


def test_a_record_comes_back_and_another_is_refused() -> None:
    known = replace(training(), delivered=Range(1.0, 2.0, 3.0))
    assert Seen.from_dict(known.to_dict()) == known
    before = known.to_dict()
    del before["delivered"]
    assert Seen.from_dict(before) == training(), "a checkpoint from before"
    with pytest.raises(SchemaError, match="not a record of what training saw"):
        Seen.from_dict({"density": 3})


def test_a_scan_is_unlike_the_training_where_most_of_its_tiles_are() -> None:
    assert unlike_tiles(0.5) == []
    (sentence,) = unlike_tiles(0.62)
    assert sentence.startswith("62% of its tiles are unlike what the network was trained on")

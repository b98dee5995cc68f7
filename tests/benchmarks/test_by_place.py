import json

import numpy as np
import pytest

from benchmarks import by_place
from benchmarks.by_place import draw, set_scores
from tests.support.clouds import REAL


def test_a_point_is_right_where_its_code_allows_the_class():
    names = ("ground", "low", "high", "building")
    ground, vegetation, unknown = [1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]
    may_be = np.array([ground, ground, vegetation, vegetation, vegetation, unknown], bool)

    scores = set_scores(np.array([0, 1, 1, 2, 0, 3]), may_be, names)

    assert scores["oa"] == pytest.approx(3 / 5)
    # One ground point right of two, and one vegetation point wrongly called ground; two of three, and one wrongly.
    assert scores["iou"] == {"ground": pytest.approx(1 / 3, abs=1e-4), "low | high": pytest.approx(2 / 4)}
    assert scores["miou"] == pytest.approx((1 / 3 + 1 / 2) / 2, abs=1e-4)
    assert scores["scored"] == 5


def test_a_fold_trains_without_its_place_and_blocks_are_cut_once(tmp_path, capsys, monkeypatch):
    data = REAL
    if not (data / "lidarhd_meadow").is_dir():
        pytest.skip(f"the shared scans are not at {data}")
    places = {name: by_place.PLACES[name] for name in ("meadow", "nebraska", "amsterdam-west")}
    monkeypatch.setattr(by_place, "PLACES", places)
    given = [
        "--data",
        str(data),
        "--cache",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
        "--places",
        "meadow",
    ]
    small = [
        "--steps",
        "1",
        "--blocks",
        "1",
        "--threads",
        "1",
        "--network",
        "num_layers=2",
        "dilations=[1]",
        "channels=8",
        "k=4",
    ]

    assert by_place.main([*given, *small]) == 0
    first = capsys.readouterr().out
    assert by_place.main([*given, *small]) == 0
    second = capsys.readouterr().out

    assert "cut nebraska" in first
    assert "cut" not in second.split("fold 0")[0]
    record = json.loads(second.splitlines()[-1])
    assert record["places"].keys() == {"meadow"}
    assert record["places"]["meadow"]["scored"] == 67_776
    kept = json.loads((tmp_path / "out" / "fold-0" / "checkpoint.json").read_text())
    assert kept["provenance"] == {"left_out": ["meadow"], "trained_on": ["amsterdam-west", "nebraska"]}


def test_a_large_place_counts_no_more_than_a_small_one(make_block):
    blocks = [make_block(scan="large", tile=(n, 0)) for n in range(20)]
    blocks += [make_block(scan="small", tile=(n, 0)) for n in range(2)]

    drawn = draw(blocks, {"large": "one", "small": "other"}, 3, seed=0)

    assert sorted(block.scan for block in drawn) == ["large"] * 3 + ["small"] * 2


@pytest.fixture
def make_block():
    from pointcloud.blocks.block import Block

    def make(scan: str, tile: tuple[int, int]) -> Block:
        return Block(
            scan=scan,
            tile=tile,
            shift=(0, 0),
            cell=(0.0, 0.0, 16.0, 16.0),
            origin=np.zeros(3),
            position=np.zeros((40, 3), np.float32),
            height=np.zeros(40, np.float32),
            attributes={},
            label=np.zeros(40, np.int8),
            is_core=np.ones(40, bool),
            point_index=np.arange(40),
        )

    return make

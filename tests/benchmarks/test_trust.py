import numpy as np
import pytest

from benchmarks.trust import Limits, Tile, calibration_error, fit, is_right, judge
from pointcloud.labels import FIRST_SET, IGNORE, PRESETS, LabelScheme, PartialLabel

PLACES = ("beziers", "delft", "pilat", "alsace")


def make_tile(place: str, accuracy: float, distance: float, confidence: float, num_points: int = 200) -> Tile:
    """Of two classes, all points as sure."""
    first = np.log(confidence / (1 - confidence))
    return Tile(
        place=place,
        accuracy=accuracy,
        distance=distance,
        logits=np.tile(np.float32([first, 0]), (num_points, 1)),
        right=np.arange(num_points) < round(accuracy * num_points),
    )


def test_a_class_is_right_where_the_label_allows_it() -> None:
    scheme = LabelScheme(
        "s", PRESETS["ground-vegetation-building"].classes, (PartialLabel((1,), ("vegetation", "building")),)
    )
    labels = np.array([0, 0, FIRST_SET, FIRST_SET, FIRST_SET, IGNORE], np.int8)

    found = is_right(np.array([0, 1, 0, 1, 2, 1]), labels, scheme)

    assert found.tolist() == [True, False, False, True, True, False]


def test_confidence_that_is_the_share_of_right_points_has_no_error() -> None:
    right = [make_tile(place, share, 1.0, share) for place in PLACES for share in (0.6, 0.8, 0.95)]
    too_sure = [make_tile(place, 0.6, 1.0, 0.9) for place in PLACES]

    assert calibration_error(right, 1.0) == pytest.approx(0, abs=1e-3)
    assert calibration_error(too_sure, 1.0) == pytest.approx(0.3, abs=1e-3)
    assert calibration_error(too_sure, 1e6) == pytest.approx(0.1, abs=1e-3)


def test_a_place_with_many_tiles_counts_no_more_than_one_with_few() -> None:
    tiles = [make_tile("delft", 0.9, 1.0, 0.9)] * 9 + [make_tile("pilat", 0.5, 1.0, 0.9)]

    assert calibration_error(tiles, 1.0) == pytest.approx((0.9 + 0.9) / 2 - (0.9 + 0.5) / 2, abs=1e-3)


def test_the_limits_find_what_is_far_or_unsure_and_leave_the_rest() -> None:
    good = [make_tile(place, 0.95, 1.0 + n / 100, 0.95) for n, place in enumerate(PLACES * 5)]
    far = [make_tile(place, 0.3, 4.0 + n / 100, 0.95) for n, place in enumerate(PLACES * 3)]
    unsure = [make_tile(place, 0.5, 1.0, 0.6) for place in PLACES]

    limits = fit(good + far + unsure)

    assert all(limits.lists(tile) for tile in far + unsure)
    assert not any(limits.lists(tile) for tile in good)


def test_one_half_of_the_places_is_judged_by_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    tiles = [make_tile(place, 0.95, 1.0 + n / 100, 0.95) for n, place in enumerate(PLACES * 5)]
    tiles += [make_tile(place, 0.3, 4.0 + n / 100, 0.95) for n, place in enumerate(PLACES * 3)]

    record = judge(tiles)

    assert record["failing_tiles_found"] == 1.0
    assert record["good_tiles_listed"] <= 0.05  # the limit lies on a tile of the other half
    assert (record["tiles"], record["failing_tiles"]) == (32, 12)
    assert "| delft | town | 70.6 |" in capsys.readouterr().out


def test_a_tile_is_listed_for_either_reason() -> None:
    limits = Limits(temperature=1.0, confidence=0.7, distance=2.0)

    assert [
        limits.lists(make_tile("delft", 1.0, distance, sure))
        for distance, sure in ((1.0, 0.9), (3.0, 0.9), (1.0, 0.6))
    ] == [False, True, True]

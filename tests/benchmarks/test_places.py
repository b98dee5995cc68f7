import numpy as np
import pytest

from benchmarks.places import PLACES, PRODUCERS, allowed, chosen_classes, folds_of, scheme_of
from pointcloud.errors import PointloomError


def test_every_scan_is_of_one_place_and_every_place_has_a_producer():
    scans = [scan for place in PLACES.values() for scan in place.scans]

    assert len(scans) == len(set(scans))
    assert {place.producer for place in PLACES.values()} == set(PRODUCERS)


def test_codes_that_allow_several_classes_or_one_that_is_not_asked_for():
    scheme = scheme_of(chosen_classes(None))
    codes = np.array([1, 2, 6, 9, 26])

    assert allowed(codes, "ahn3_amsterdam/ahn_2386_9702.laz", scheme).tolist() == [
        [False, True, True, True],  # facades and cars, too
        [True, False, False, False],
        [False, False, False, True],
        [False] * 4,  # water is no class here
        [False] * 4,  # a quay is ground or a bridge deck, and only one of them is a class here
    ]
    forest = "bcts_forest/bcts_1.laz"
    assert allowed(codes, forest, scheme)[0].tolist() == [False, True, True, False]


@pytest.mark.parametrize("folds", [0, 1, 4])
def test_every_place_is_left_out_once(folds):
    groups = folds_of(list(PLACES), folds)

    assert len(groups) == (folds or len(PLACES))
    assert sorted(place for group in groups for place in group) == sorted(PLACES)


def test_more_folds_than_places_are_refused():
    with pytest.raises(PointloomError, match="folds must be from 1 to 2, found 3"):
        folds_of(["delft", "harbour"], 3)

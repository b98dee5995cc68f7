"""What a user may choose about labels changes what it says and nothing else, and the proof knows the difference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest

from pointcloud.delivery.extra_dimensions import ENTROPY, ORIGINAL, AddedDimension, probability_dimensions
from pointcloud.delivery.las_copy import output_name, write_labelled
from pointcloud.delivery.proof import find_difference
from pointcloud.errors import PointloomError, ScanError
from pointcloud.formats.reader import iterate_clouds
from pointcloud.labelling.measures import STEP, class_and_confidence, summarise
from pointcloud.labelling.options import MARKED, OUTLIER, LabelOptions, parse_codes
from pointcloud.labels import PRESETS, ClassLabel, LabelScheme
from tests.support.clouds import assert_one_sentence, real_files, write_las

NUM = 400
SCHEME = PRESETS["ground-vegetation-building"]
RNG = np.random.default_rng(0)
DELIVERED = RNG.choice(np.array([0, 1, 2, 5, 6, 9], np.uint8), NUM)
PREDICTED = RNG.choice(np.array([2, 5, 6], np.uint8), NUM)
SURE = RNG.random(NUM).astype(np.float32)


@pytest.fixture(params=[1, 7], ids=["format 1", "format 7"])
def scan(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    version = "1.2" if request.param < 6 else "1.4"
    return write_las(tmp_path / "scan.laz", NUM, request.param, version, classification=DELIVERED)


def label(scan: Path, out: Path, **changes: object) -> laspy.LasData:
    options = LabelOptions(**changes)
    counts = write_labelled(str(scan), str(out), PREDICTED, SURE, options).counts
    las = laspy.read(out)
    np.testing.assert_array_equal(counts, np.bincount(np.asarray(las.classification), minlength=256))
    return las


CHOICES: list[tuple[dict[str, object], Callable[[], np.ndarray]]] = [
    ({}, lambda: PREDICTED),
    ({"preserve": (9, 6)}, lambda: np.where(np.isin(DELIVERED, (6, 9)), DELIVERED, PREDICTED)),
    ({"only_unclassified": True}, lambda: np.where(DELIVERED > 1, DELIVERED, PREDICTED)),
    (
        {"only_unclassified": True, "preserve": (0,)},
        lambda: np.where(DELIVERED == 1, PREDICTED, DELIVERED),
    ),
    (
        {"min_confidence": 0.5, "preserve": (2,)},
        lambda: np.where(
            DELIVERED == 2, DELIVERED, np.where(np.rint(SURE * 100) < 50, np.uint8(1), PREDICTED)
        ),
    ),
]


@pytest.mark.parametrize(("choice", "expected"), CHOICES, ids=[str(choice) for choice, _ in CHOICES])
def test_which_points_change(
    scan: Path, tmp_path: Path, choice: dict[str, object], expected: Callable[[], np.ndarray]
) -> None:
    las = label(scan, tmp_path / "out.laz", **choice)
    np.testing.assert_array_equal(np.asarray(las.classification), expected())
    assert find_difference(str(scan), str(tmp_path / "out.laz"), LabelOptions(**choice)) is None


def test_doubt_is_told_by_what_is_written(scan: Path, tmp_path: Path) -> None:
    las = label(scan, tmp_path / "out.laz", min_confidence=0.57)
    doubtful = np.rint(np.asarray(las["confidence"]) * 100) < 57
    np.testing.assert_array_equal(np.asarray(las.classification) == 1, doubtful)


def test_the_delivered_classes_are_kept_and_stay_the_first_ones(scan: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.laz", tmp_path / "second.laz"
    las = label(scan, first, keep_original=True)
    np.testing.assert_array_equal(np.asarray(las[ORIGINAL.name]), DELIVERED)
    again = label(first, second, keep_original=True, min_confidence=1.0)
    np.testing.assert_array_equal(np.asarray(again[ORIGINAL.name]), DELIVERED)
    assert [n for n in again.point_format.dimension_names if ORIGINAL.name in n] == [ORIGINAL.name]


def test_a_dimension_of_the_scan_s_own_is_never_touched(tmp_path: Path) -> None:
    header = laspy.LasHeader(version="1.4", point_format=6)
    theirs = {}
    for name, kind in ((ORIGINAL.name, np.uint8), ("entropy", np.float64), ("p_ground", np.uint8)):
        header.add_extra_dim(laspy.ExtraBytesParams(name, kind, "theirs"))
        theirs[name] = RNG.integers(0, 200, NUM).astype(kind)
    scan, out = tmp_path / "scan.las", tmp_path / "out.las"
    write_las(scan, NUM, header=header, **{**theirs, "classification": DELIVERED})
    entropy, shares = np.arange(NUM, dtype=np.uint8), RNG.integers(0, 251, (3, NUM)).astype(np.uint8)
    measures = {ENTROPY: entropy, **dict(zip(probability_dimensions(SCHEME), shares, strict=True))}
    options = LabelOptions(keep_original=True)
    for source in (scan, out):  # the second time ours are there as well
        write_labelled(str(source), str(tmp_path / "next.las"), PREDICTED, SURE, options, measures)
        (tmp_path / "next.las").rename(out)
        las = laspy.read(out)
        for name, values in theirs.items():
            np.testing.assert_array_equal(np.asarray(las[name]), values)
        np.testing.assert_array_equal(np.asarray(las["original_classificatio_pointloom"]), DELIVERED)
        np.testing.assert_allclose(np.asarray(las["entropy_pointloom"]), entropy * STEP)
        np.testing.assert_allclose(np.asarray(las["p_ground_pointloom"]), shares[0] * STEP)
        np.testing.assert_allclose(np.asarray(las["p_building"]), shares[2] * STEP)
        assert len(list(las.point_format.extra_dimension_names)) == 3 + 1 + 1 + 1 + 3


@pytest.mark.parametrize("path", real_files("*/*.la[sz]", max_bytes=1_300_000))
def test_real_files_take_all_of_it(path: Path, tmp_path: Path) -> None:
    """Also those of LAS 1.0, with waveforms, with extra bytes of their own; `write_labelled` proves each."""
    try:
        num = sum(len(cloud) for cloud in iterate_clouds(str(path)))
    except ScanError:
        pytest.skip("not readable; test_labelled has it refused")
    rng, out = np.random.default_rng(2), tmp_path / output_name(path.name)
    codes, shares = rng.choice(np.array([2, 5, 6], np.uint8), num), rng.random(num)
    options = LabelOptions(preserve=(2, 9), min_confidence=0.3, keep_original=True)
    write_labelled(
        str(path), str(out), codes, shares, options, {ENTROPY: rng.integers(0, 251, num, np.uint8)}
    )
    before = np.asarray(laspy.read(path).classification)
    las = laspy.read(out)
    after, kept = np.asarray(las.classification), np.isin(before, (2, 9))
    np.testing.assert_array_equal(np.asarray(las[ORIGINAL.name]), before)
    np.testing.assert_array_equal(after[kept], before[kept])
    expected = np.where(np.rint(shares * 100) < 30, np.uint8(1), codes)
    np.testing.assert_array_equal(after[~kept], expected[~kept])


def test_names_of_probabilities_are_different_and_fit() -> None:
    names = ("low vegetation", "low-vegetation", "x" * 50, "x" * 51, "ä")
    scheme = LabelScheme("odd", tuple(ClassLabel(n, (i,), i, "#000000") for i, n in enumerate(names)))
    found = [dimension.name for dimension in probability_dimensions(scheme)]
    assert found == ["p_low_vegetation", "p_low_vegetation_1", "p_" + "x" * 30, "p_" + "x" * 26 + "_3", "p__"]


def test_measures_are_those_of_the_softmax() -> None:
    logits = np.random.default_rng(1).normal(0, 3, (500, 4))
    logits[0], logits[1] = 7.0, [1e4, -1e4, 0, 0]
    found = summarise(logits, LabelOptions(entropy=True, probabilities=True))
    shifted = logits - logits.max(axis=1, keepdims=True)
    share = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.nansum(share * np.log(share), axis=1) / np.log(4)
    assert np.abs(found["probabilities"] * STEP - share).max() <= STEP / 2 + 1e-9
    assert np.abs(found["entropy"] * STEP - entropy).max() <= STEP / 2 + 1e-9
    assert found["entropy"][0] * STEP == 1.0
    assert found["entropy"][1] == 0
    np.testing.assert_allclose(found["confidence"], share.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(found["classes"], class_and_confidence(logits)[0])
    assert set(summarise(logits, LabelOptions())) == {"classes", "confidence"}
    assert (summarise(logits[:, :1], LabelOptions(entropy=True))["entropy"] == 0).all()


# --- what the proof catches


def change(path: Path, name: str, at: int, value: int) -> None:
    las = laspy.read(path)
    values = np.array(las[name])
    values[at] = value
    las[name] = values
    las.write(str(path))


def test_the_proof_catches_a_class_that_had_to_stay(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.laz"
    for choice in ({"preserve": (6,)}, {"only_unclassified": True}):
        label(scan, out, **choice)
        free, fixed = (int(np.flatnonzero(code == DELIVERED)[0]) for code in (1, 6))
        change(out, "classification", free, 9)
        assert find_difference(str(scan), str(out), LabelOptions(**choice)) is None
        change(out, "classification", fixed, 9)
        difference = find_difference(str(scan), str(out), LabelOptions(**choice))
        assert difference == "the class of points that must keep theirs"


def test_the_proof_catches_what_was_delivered_being_wrong_or_missing(scan: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "out.laz", LabelOptions(keep_original=True)
    label(scan, out)
    assert "original_classification, which is missing" in str(find_difference(str(scan), str(out), options))
    label(scan, out, keep_original=True)
    change(out, ORIGINAL.name, 3, 77)
    assert "which is not the scan's" in str(find_difference(str(scan), str(out), options))


def test_the_proof_catches_a_dimension_that_no_labelling_writes(scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.laz"
    label(scan, out)
    las = laspy.read(out)
    las.add_extra_dim(laspy.ExtraBytesParams("surprise", np.uint8))
    las.write(str(out))
    assert find_difference(str(scan), str(out)) == "the extra dimension surprise, which no labelling writes"


def test_what_this_run_does_not_write_is_proven_too(scan: Path, tmp_path: Path) -> None:
    """An entropy that an earlier labelling left is a dimension like any other for one that writes none."""
    first, second = tmp_path / "first.laz", tmp_path / "second.laz"
    entropy: dict[AddedDimension, np.ndarray] = {ENTROPY: np.full(NUM, 9, np.uint8)}
    write_labelled(str(scan), str(first), PREDICTED, SURE, measures=entropy)
    label(first, second)
    assert (np.asarray(laspy.read(second)["entropy"]) == 9 * STEP).all()
    change(second, "entropy", 3, 1)
    assert find_difference(str(first), str(second), written=["confidence"]) == "dimension entropy"
    assert find_difference(str(first), str(second)) is None


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"min_confidence": 1.1}, "from 0 to 1"),
        ({"rotations": 0}, "1 or more"),
        ({"smoothing": -1}, "smoothing 0 or more"),
        ({"preserve": (256,)}, "class code 256"),
        ({"codes": (("ground", -1),)}, "class code -1"),
        ({"codes": (("ground", 2), ("ground", 3))}, "a class twice"),
    ],
)
def test_options_that_cannot_be(changes: dict[str, object], said: str) -> None:
    with pytest.raises(PointloomError) as error:
        LabelOptions(**changes)
    assert_one_sentence(error, said)


def test_codes_of_the_user_s_own() -> None:
    codes = parse_codes(["vegetation=4, ground=20", "building=6"])
    assert codes == (("building", 6), ("ground", 20), ("vegetation", 4))
    scheme = LabelOptions(codes=codes).scheme(SCHEME)
    assert scheme.names == SCHEME.names
    np.testing.assert_array_equal(scheme.to_codes(np.array([0, 1, 2])), [20, 4, 6])
    with pytest.raises(PointloomError) as error:
        LabelOptions(codes=(("tree", 5),)).scheme(SCHEME)
    assert_one_sentence(error, "'tree'")
    for text in ("vegetation", "vegetation=x", "=4", "a=b=-1"):
        with pytest.raises(PointloomError, match="expected name=code"):
            parse_codes([text])


def test_noise_keeps_its_code_and_outliers_get_another_where_wanted() -> None:
    codes, predicted = np.array([1, 7, 2, 5], np.uint8), np.full(4, 6, np.uint8)
    noise = np.array([0, MARKED, OUTLIER, OUTLIER], np.uint8)
    sure = np.array([1.0, 0.0, 0.0, 0.0])

    def new(**choices: Any) -> list[int]:
        return LabelOptions(**choices).new_codes(codes, predicted, sure, noise=noise).tolist()

    assert new() == [6, 7, 2, 5]
    assert new(min_confidence=0.5) == [6, 7, 2, 5], "noise is not unclassified"
    assert new(noise_code=18) == [6, 7, 18, 18]
    assert new(noise_code=18, preserve=(5,)) == [6, 7, 18, 5]
    assert new(noise_code=0, only_unclassified=True) == [6, 7, 2, 5]


@pytest.mark.parametrize("code", [-1, 32])
def test_a_noise_code_that_old_formats_cannot_hold_is_refused(code: int) -> None:
    with pytest.raises(PointloomError, match=f"noise_code {code} cannot be written") as error:
        LabelOptions(noise_code=code)
    assert_one_sentence(error, str(code))

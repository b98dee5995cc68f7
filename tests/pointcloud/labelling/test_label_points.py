"""Labels region by region: those of the cloud as a whole, and the same whatever files a survey comes in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import laspy
import numpy as np
import pytest

from pointcloud.blocks.block import Block
from pointcloud.blocks.decoded import decode_scan
from pointcloud.blocks.neighbours import find_neighbours
from pointcloud.blocks.tiles import iterate_blocks, thin
from pointcloud.errors import ScanError
from pointcloud.formats.reader import read_cloud, read_header
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labelling.label_points import label_points
from pointcloud.labelling.options import MARKED, OUTLIER
from tests.pointcloud.dataset.test_cutting import CONFIG, nine, whole
from tests.support.clouds import assert_one_sentence, crop, write_las
from tests.support.noise import below_ground, with_points
from tests.support.scan_files import ply_bytes
from tests.support.voxel_votes import VoxelVotes

__all__ = ["nine", "whole"]
C = 4


def predict(blocks: Iterable[Block]) -> Iterator[tuple[Block, np.ndarray]]:
    """Logits that depend on the whole block, as a network's do, whatever the order of its points."""
    for block in blocks:
        place = np.sort(np.round(block.position.astype(np.float64), 3), axis=0)
        context = np.array(
            [np.sin(place[:, 0].sum()), np.cos(place[:, 1].sum()), place[:, 2].mean(), len(block) % 7]
        )
        waves = np.sin(block.position[:, :1] * [1, 2, 3, 5]) + np.cos(block.height[:, None] * [2, 1, 4, 3])
        yield block, (waves + 0.2 * context).astype(np.float32)


def summarise(mean: np.ndarray) -> dict[str, np.ndarray]:
    return {"class": mean.argmax(axis=1).astype(np.uint8), "mean": mean}


def label_all(scans: Sequence[Path], config: BlockConfig, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    folder.mkdir()
    neighbours = find_neighbours({s.name: read_header(str(s)) for s in scans}, config)
    decoded_scans = {
        s.name: decode_scan(s.name, str(s), folder / s.name, config, every_point=True) for s in scans
    }
    return {
        scan: label_points(
            decoded, [decoded_scans[other] for other in neighbours[scan]], config, predict, summarise
        )
        for scan, decoded in decoded_scans.items()
    }


def by_place(scans: Sequence[Path], labels: dict[str, dict[str, np.ndarray]]) -> dict[tuple[float, ...], int]:
    found = {}
    for scan in scans:
        for xyz, label in zip(
            read_cloud(str(scan)).xyz.tolist(), labels[scan.name]["class"].tolist(), strict=True
        ):
            found[tuple(xyz)] = label
    return found


@pytest.mark.parametrize("thinned", [True, False])
@pytest.mark.parametrize("overlap", [1, 2])
def test_as_the_cloud_as_a_whole(whole: Path, tmp_path: Path, overlap: int, thinned: bool) -> None:
    config = replace(CONFIG, overlap=overlap, thin=thinned)
    cloud = read_cloud(str(whole))
    voxels = thin(cloud, config)
    votes = VoxelVotes(len(voxels), C)
    for block, logits in predict(iterate_blocks("whole", cloud, voxels, config, None)):
        votes.add(block, logits)
    expected, _ = votes.labels(cloud, voxels, config)
    found = label_all([whole], config, tmp_path / "decoded_scans")[whole.name]
    assert (found["class"] == expected).mean() > 0.9999  # sums of logits in another order
    assert found["mean"].shape == (len(cloud), C)
    assert len(np.unique(found["class"])) == C


@pytest.mark.parametrize("overlap", [1, 2])
def test_no_seam_between_files(whole: Path, nine: list[Path], tmp_path: Path, overlap: int) -> None:
    config = replace(CONFIG, overlap=overlap)
    one = by_place([whole], label_all([whole], config, tmp_path / "one"))
    other = by_place(nine, label_all(nine, config, tmp_path / "nine"))
    assert one.keys() == other.keys()
    agree = np.mean([one[place] == other[place] for place in one])
    assert agree >= 0.999
    apart = by_place(nine, label_all(nine, replace(config, across_scans=False), tmp_path / "apart"))
    assert np.mean([one[place] == apart[place] for place in one]) < 0.99


def test_files_of_labels_have_their_blocks_before_they_are_written_to(whole: Path, tmp_path: Path) -> None:
    decoded = decode_scan(whole.name, str(whole), tmp_path / "decoded.arrow", CONFIG, every_point=True)

    def one_of_a_thousand(mean: np.ndarray) -> dict[str, np.ndarray]:
        return {"class": np.zeros((len(mean), 1000), np.uint8)}  # zeros alone: a sparse file would stay empty

    label_points(decoded, [], CONFIG, predict, one_of_a_thousand, folder=tmp_path)
    made = (tmp_path / "class.npy").stat()
    assert made.st_size > 1000 * decoded.num_points
    assert 512 * made.st_blocks >= made.st_size


@pytest.mark.parametrize("strange", [np.nan, np.inf])
def test_logits_that_are_nan_or_infinite_are_said(whole: Path, tmp_path: Path, strange: float) -> None:
    decoded = decode_scan(whole.name, str(whole), tmp_path / "decoded.arrow", CONFIG, every_point=True)

    def spoilt(blocks: Iterable[Block]) -> Iterator[tuple[Block, np.ndarray]]:
        for block, logits in predict(blocks):
            logits[np.flatnonzero(block.is_core)[:1], 0] = strange
            yield block, logits

    with pytest.raises(ScanError, match="NaN or infinite logits") as error:
        label_points(decoded, [], CONFIG, spoilt, summarise)
    assert_one_sentence(error, whole.name)


def write_unfilled(path: Path) -> Path:
    return write_las(path.with_suffix(".las"), 600, return_number=0, number_of_returns=0)


def write_ply(path: Path) -> Path:
    xyz = read_cloud(str(write_unfilled(path))).xyz
    rows = np.rec.fromarrays(xyz.T, dtype=[(name, "<f8") for name in "xyz"])
    path.with_suffix(".ply").write_bytes(ply_bytes(rows))
    return path.with_suffix(".ply")


@pytest.mark.parametrize("write", [write_unfilled, write_ply])
def test_points_without_return_numbers_are_labelled_as_single_returns(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    """A network that needs return numbers labels the scan, beside a neighbour that has some."""
    scans = [
        write(tmp_path / "a"),
        write_las(tmp_path / "b.las", 600, seed=1, return_number=2, number_of_returns=3),
    ]
    seen: dict[str, list[np.ndarray]] = {"return_number": [], "number_of_returns": []}

    def looking(blocks: Iterable[Block]) -> Iterator[tuple[Block, np.ndarray]]:
        for block, logits in predict(blocks):
            for name, values in seen.items():
                values.append(block.attributes[name])
            yield block, logits

    decoded_scans = [
        decode_scan(scan.name, str(scan), tmp_path / f"{scan.name}.arrow", CONFIG, every_point=True)
        for scan in scans
    ]
    assert "return_number" not in decoded_scans[0].attributes
    label_points(decoded_scans[0], decoded_scans[1:], CONFIG, looking, summarise)
    number, total = (np.concatenate(values) for values in seen.values())
    assert set(zip(number.tolist(), total.tolist(), strict=True)) == {(1, 1), (2, 3)}


NOISY = replace(CONFIG, ground_window_m=30.0)


@pytest.mark.parametrize(
    ("code", "withheld", "kind"),
    [(1, False, OUTLIER), (7, False, MARKED), (18, False, MARKED), (2, True, MARKED)],
)
@pytest.mark.parametrize("overlap", [1, 2])
def test_noise_changes_no_other_label(
    whole: Path, tmp_path: Path, code: int, withheld: bool, kind: int, overlap: int
) -> None:
    config = replace(NOISY, overlap=overlap)
    noise = np.concatenate([below_ground(whole, 30.0, 3), below_ground(whole, -300.0, 2, seed=1)])
    noisy = with_points(whole, tmp_path / whole.name, noise, code, withheld)
    expected = label_all([whole], config, tmp_path / "plain")[whole.name]
    found = label_all([noisy], config, tmp_path / "noisy")[whole.name]
    num = len(expected["class"])
    assert "noise" not in expected
    np.testing.assert_array_equal(found["mean"][:num], expected["mean"])
    assert found["noise"].tolist() == [0] * num + [kind] * len(noise)
    assert not found["mean"][num:].any(), "noise gets no label"
    used = label_all([noisy], replace(config, noise="use"), tmp_path / "used")[whole.name]
    assert "noise" not in used
    assert (used["class"][:num] != expected["class"]).any(), "or it would not show what noise does"


def test_noise_is_the_same_in_one_file_and_in_nine(whole: Path, tmp_path: Path) -> None:
    noisy = with_points(whole, tmp_path / whole.name, below_ground(whole, 25.0, 6, seed=2))
    pieces = crop(noisy, tmp_path / "nine", [652_030.3, 652_061.1], [6_600_029.9, 6_600_060.2])
    one = label_all([noisy], NOISY, tmp_path / "one")[noisy.name]
    other = label_all(pieces, NOISY, tmp_path / "other")
    noise_of = {scan: labels.get("noise", np.zeros(1)) for scan, labels in other.items()}
    assert sum(np.count_nonzero(noise) for noise in noise_of.values()) == np.count_nonzero(one["noise"]) == 6
    apart = by_place([noisy], {noisy.name: one})
    assert np.mean([apart[place] == label for place, label in by_place(pieces, other).items()]) >= 0.999


def test_a_scan_of_one_point_far_below_its_neighbours_is_refused(whole: Path, tmp_path: Path) -> None:
    lonely = with_points(whole, tmp_path / "b.laz", below_ground(whole, 50.0))
    (piece,) = crop(lonely, tmp_path / "low", [], [])[:1]
    las = laspy.read(piece)
    las.points = las.points[-1:]
    las.update_header()
    las.write(tmp_path / "b.laz")
    decoded = [
        decode_scan(path.name, str(path), tmp_path / f"{path.name}.arrow", NOISY, every_point=True)
        for path in (tmp_path / "b.laz", whole)
    ]
    with pytest.raises(ScanError, match="holds only isolated points") as error:
        label_points(decoded[0], decoded[1:], NOISY, predict, summarise)
    assert_one_sentence(error, "b.laz")

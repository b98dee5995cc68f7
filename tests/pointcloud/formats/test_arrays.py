"""NumPy files: every documented layout, in chunks, and nothing pickled."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pointcloud.errors import ScanError
from pointcloud.formats import arrays
from pointcloud.formats.reader import iterate_clouds, read_cloud, read_header
from tests.support.clouds import assert_one_sentence

RNG = np.random.default_rng(0)
XYZ = RNG.random((30, 3)) * 50
RGB = RNG.integers(0, 256, (30, 3))
LABEL = RNG.integers(0, 13, 30)


def npy(folder: Path, array: Any) -> str:
    np.save(folder / "a.npy", array)
    return str(folder / "a.npy")


@given(xyz=hnp.arrays(np.float64, st.tuples(st.integers(1, 9), st.just(3)), elements=st.floats(-1e9, 1e9)))
def test_coordinates_come_back_exactly(xyz: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp()
    np.testing.assert_array_equal(read_cloud(npy(folder, xyz)).xyz, xyz)
    np.savez_compressed(folder / "a.npz", xyz=xyz)
    np.testing.assert_array_equal(read_cloud(str(folder / "a.npz")).xyz, xyz)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.dtype(">f8")])
def test_columns_by_place(tmp_path: Path, kind: Any) -> None:
    table = np.column_stack([XYZ, RGB, LABEL]).astype(kind)
    for width, names in (
        (3, set()),
        (6, {"red", "green", "blue"}),
        (7, {"red", "green", "blue", "classification"}),
    ):
        path = npy(tmp_path, table[:, :width].copy())
        cloud = read_cloud(path)
        assert set(cloud.attributes) == names == set(read_header(path).attributes)
        np.testing.assert_array_equal(cloud.xyz, table[:, :3])
    np.testing.assert_array_equal(cloud.attributes["red"], RGB[:, 0] * 257)
    np.testing.assert_array_equal(cloud.attributes["classification"], LABEL)


def test_columns_by_field(tmp_path: Path) -> None:
    rows = np.zeros(30, [("x", "f8"), ("y", "f8"), ("z", "f4"), ("Intensity", "u2"), ("normal", "f4", 3)])
    rows["x"], rows["Intensity"] = XYZ[:, 0], LABEL
    path = npy(tmp_path, rows)
    assert read_header(path).dimensions == ("x", "y", "z", "Intensity", "normal")
    np.testing.assert_array_equal(read_cloud(path).attributes["intensity"], LABEL)


@pytest.mark.parametrize(
    "names", [("xyz", "rgb", "label"), ("coord", "color", "segment"), ("points", "colors", "class")]
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_by_name(tmp_path: Path, names: tuple[str, str, str], save: Any) -> None:
    path = tmp_path / "a.npz"
    save(
        path,
        **dict(zip(names, (XYZ, RGB.astype(np.uint8), LABEL), strict=True)),
        note=np.array("scanned in May"),
    )
    header, cloud = read_header(str(path)), read_cloud(str(path))
    assert header.num_points == 30
    assert header.notes[1] == "arrays that are no attribute of its points are left out: note."
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    np.testing.assert_array_equal(cloud.attributes["blue"], RGB[:, 2] * 257)
    np.testing.assert_array_equal(cloud.attributes["classification"], LABEL)


def test_arrays_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=XYZ[:, 0], y=XYZ[:, 1], z=XYZ[:, 2:], intensity=LABEL[:20])
    assert read_header(str(path)).notes[1].endswith("left out: intensity.")
    np.testing.assert_array_equal(read_cloud(str(path)).xyz, XYZ)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_chunks_add_up(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / f"a{suffix}")
    if suffix == ".npy":
        np.save(path, np.column_stack([XYZ, RGB / 255]))
    else:
        np.savez(path, xyz=XYZ, rgb=RGB / 255, intensity=XYZ[:, 0])
    whole = read_cloud(path)
    np.testing.assert_array_equal(whole.attributes["red"], RGB[:, 0] * 257)
    monkeypatch.setattr(arrays, "CHUNK_POINTS", 7)
    assert [len(cloud) for cloud in iterate_clouds(path)] == [7, 7, 7, 7, 2]
    again = read_cloud(path)
    np.testing.assert_array_equal(again.xyz, whole.xyz)
    for name, values in whole.attributes.items():
        np.testing.assert_array_equal(again.attributes[name], values)


# --- bad files


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((5, 4)), r"shape \(5, 4\)"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((0, 3)), "holds no points"),
        (np.array([[1, 2, np.nan]]), "1 of 1 points have NaN"),
        (np.asfortranarray(XYZ), "Fortran order"),
        (np.array([[{}, 1, 2]], object), "Python objects"),
        (np.array([["a", "b", "c"]]), "not a column of numbers"),
        (np.zeros(3, [("x", "f8"), ("y", "f8")]), "no coordinates z"),
        (np.zeros(3, [("x", "f8", 2), ("y", "f8"), ("z", "f8")]), "not a column of numbers"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_bad_array_is_one_sentence(tmp_path: Path, array: np.ndarray, expected: str) -> None:
    path = npy(tmp_path, array)
    with pytest.raises(ScanError, match=expected) as error:
        read_cloud(path)
    assert_one_sentence(error, path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@given(share=st.floats(0, 0.999))
def test_every_truncated_copy_is_refused(
    suffix: str, share: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / f"cut{suffix}"
    if suffix == ".npy":
        np.save(path, XYZ)
    else:
        np.savez_compressed(path, xyz=XYZ)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ScanError) as error:
        read_cloud(str(path))
    assert_one_sentence(error, str(path))


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    path = Path(npy(tmp_path, XYZ))
    content = path.read_bytes().replace(b"(30, 3), }           ", b"(4000000000, 3), }   ")
    path.write_bytes(content)
    with pytest.raises(ScanError, match="promises 96000000000 bytes") as error:
        read_cloud(str(path))
    assert_one_sentence(error, str(path))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("xyz.npy", content)
    with pytest.raises(ScanError, match="promises 96000000000 bytes"):
        read_cloud(str(tmp_path / "a.npz"))


def test_an_archive_without_points(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", weights=XYZ)
    with pytest.raises(ScanError, match="no coordinates x, y, z"):
        read_cloud(str(tmp_path / "a.npz"))
    (tmp_path / "b.npz").write_bytes(b"no archive" * 30)
    with pytest.raises(ScanError, match="not a zip file"):
        read_cloud(str(tmp_path / "b.npz"))

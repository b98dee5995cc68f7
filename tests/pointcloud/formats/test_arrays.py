"""NumPy files: every documented layout, in chunks, and nothing pickled."""

from __future__ import annotations

import re
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
    assert header.notes[0] == "arrays that are not attributes of its points are left out: note."
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    np.testing.assert_array_equal(cloud.attributes["blue"], RGB[:, 2] * 257)
    np.testing.assert_array_equal(cloud.attributes["classification"], LABEL)


def test_arrays_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=XYZ[:, 0], y=XYZ[:, 1], z=XYZ[:, 2:], normals=XYZ[:20], room=np.array(7))
    assert read_header(str(path)).notes[0].endswith("left out: normals, room.")
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


# --- the same points, however they are stored

TABLE = np.column_stack([XYZ, RGB, LABEL])
STORED = {
    "rows": TABLE,
    "columns": np.asfortranarray(TABLE),
    "stacked and transposed": np.vstack([*XYZ.T, *RGB.T, LABEL]).T,
    "a row for each column": np.ascontiguousarray(TABLE.T),
    "a row for each column, by columns": np.asfortranarray(TABLE.T),
    "big-endian": TABLE.astype(">f8"),
    "big-endian by columns": np.asfortranarray(TABLE.astype(">f8")),
    "80 bits": TABLE.astype(np.longdouble),
}


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("case", STORED)
def test_one_array_in_every_order(
    case: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_POINTS", chunk)
    path = npy(tmp_path, STORED[case])
    assert read_header(path).num_points == 30
    cloud = read_cloud(path)
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    np.testing.assert_array_equal(cloud.attributes["green"], RGB[:, 1] * 257)
    np.testing.assert_array_equal(cloud.attributes["classification"], LABEL)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("turned", [False, True], ids=["(P, 3)", "(3, P)"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_by_name_in_every_order(
    save: Any, turned: bool, order: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "CHUNK_POINTS", 11)
    xyz, rgb = (np.array(a.T if turned else a, order=order) for a in (XYZ, RGB.astype(">u2")))
    path = str(tmp_path / "a.npz")
    save(
        path, points=xyz, colors=rgb, labels=np.array(LABEL[None] if turned else LABEL[:, None], order=order)
    )
    assert read_header(path).num_points == 30
    cloud = read_cloud(path)
    np.testing.assert_array_equal(cloud.xyz, XYZ)
    np.testing.assert_array_equal(cloud.attributes["blue"], RGB[:, 2] * 257)
    np.testing.assert_array_equal(cloud.attributes["classification"], LABEL)


def test_half_precision_is_read_and_its_rounding_said(tmp_path: Path) -> None:
    notes: list[str] = []
    cloud = read_cloud(npy(tmp_path, XYZ.astype(np.float16)), notes.append)
    np.testing.assert_array_equal(cloud.xyz, XYZ.astype(np.float16))
    assert any(re.search(r"16-bit floats .* rounds them to 0\.03125;", note) for note in notes)
    read_cloud(npy(tmp_path, (XYZ * 1e6).astype(np.int32)), notes.append)
    assert len([note for note in notes if "rounds" in note]) == 1, "whole numbers are not rounded"


@pytest.mark.parametrize("shape", [(30,), (30, 1), (1, 30)])
def test_fields_of_three(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rows = np.zeros(30, [("xyz", ">f4", 3), ("rgb", "u1", 3), ("Label", "i2")])
    rows["xyz"], rows["rgb"], rows["Label"] = XYZ, RGB, LABEL
    cloud = read_cloud(npy(tmp_path, rows.reshape(shape)))
    np.testing.assert_array_equal(cloud.xyz, XYZ.astype(np.float32))
    np.testing.assert_array_equal(cloud.attributes["red"], RGB[:, 0] * 257)
    np.testing.assert_array_equal(cloud.attributes["classification"], LABEL)
    np.savez(tmp_path / "a.npz", cloud=rows)
    np.testing.assert_array_equal(read_cloud(str(tmp_path / "a.npz")).xyz, XYZ.astype(np.float32))


def test_names_of_fields_in_any_letters(tmp_path: Path) -> None:
    rows = np.zeros(30, [("x", "f8"), ("y", "f8"), ("z", "f8"), ("高さ", "f4")])
    rows["y"] = XYZ[:, 1]
    with pytest.warns(UserWarning, match=r"format 3\.0"):
        path = npy(tmp_path, rows)
    assert read_header(path).dimensions == ("x", "y", "z", "高さ")
    np.testing.assert_array_equal(read_cloud(path).xyz[:, 1], XYZ[:, 1])


# --- bad files


@pytest.mark.parametrize(
    ("name", "values", "num"),
    [
        ("label", LABEL[:-1], 29),
        ("labels", np.append(LABEL, 1), 31),
        ("label", LABEL[:1], 1),
        ("classification", LABEL[:0], 0),
        ("intensity", LABEL[:20, None], 20),
        ("rgb", RGB[:29], 29),
        ("colors", RGB[:29].T, 29),
        ("red", LABEL[:3], None),
    ],
)
def test_an_attribute_of_another_length_is_refused(
    tmp_path: Path, name: str, values: np.ndarray, num: int | None
) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, xyz=XYZ, **{name: values})
    if num is None:  # red alone is no colour
        assert "red" in read_header(path).notes[0]
        return
    for read in (read_header, read_cloud):
        with pytest.raises(ScanError, match=f"{name!r} has {num} rows for 30 points") as error:
            read(path)
        assert_one_sentence(error, path)
        assert "deliver" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "values"), [("labels", np.zeros((30, 3))), ("intensity", RGB), ("classification", XYZ.T)]
)
def test_an_attribute_of_several_numbers_a_point_is_refused(
    tmp_path: Path, name: str, values: np.ndarray
) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, xyz=XYZ, **{name: values})
    with pytest.raises(ScanError, match="not one number per point") as error:
        read_header(path)
    assert_one_sentence(error, path)
    assert "deliver" not in str(error.value)


@pytest.mark.parametrize("turned", [False, True])
def test_colours_with_an_opacity_are_read(tmp_path: Path, turned: bool) -> None:
    path = str(tmp_path / "a.npz")
    values = np.column_stack([RGB, LABEL])
    np.savez(path, xyz=XYZ, rgb=values.T if turned else values)
    np.savez(tmp_path / "b.npz", xyz=XYZ, rgb=RGB)
    found, expected = read_cloud(path), read_cloud(str(tmp_path / "b.npz"))
    for colour in ("red", "green", "blue"):
        np.testing.assert_array_equal(found.attributes[colour], expected.attributes[colour])


def test_what_is_there_instead_of_coordinates_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, points=np.zeros((30, 4)))
    with pytest.raises(ScanError, match=r"it holds 'points' of shape \(30, 4\)") as error:
        read_header(path)
    assert_one_sentence(error, path)
    assert "deliver" not in str(error.value)


def test_objects_beside_the_points_are_left_out_unread(tmp_path: Path) -> None:
    path = str(tmp_path / "a.npz")
    np.savez(path, xyz=XYZ, meta=np.array({"a": 1}, object))
    assert read_header(path).notes[0].endswith("left out: meta.")
    np.testing.assert_array_equal(read_cloud(path).xyz, XYZ)
    np.savez(path, xyz=XYZ, label=np.array([None] * 30, object))
    with pytest.raises(ScanError, match="Python objects"):
        read_cloud(path)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros((5, 4)), r"shape \(5, 4\)"),
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((0, 3)), "holds no points"),
        (np.array([[1, 2, np.nan]]), "1 of 1 points have NaN"),
        (np.zeros((5, 4), order="F"), r"shape \(5, 4\)"),
        (np.zeros((3, 3), complex), "not a column of numbers"),
        (np.full((5, 3), np.inf, np.float16), "5 of 5 points have NaN or infinite"),
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

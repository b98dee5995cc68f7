"""PLY: the same points from every encoding, names as found in the wild, and one sentence for what is bad."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcloud.delivery.table_copy import write_exported
from pointcloud.errors import ScanError
from pointcloud.formats import ply
from pointcloud.formats.reader import iterate_clouds, read_cloud, read_header
from pointcloud.labelling.options import LabelOptions
from tests.support.clouds import assert_one_sentence, real_files
from tests.support.scan_files import ply_bytes

ENCODINGS = ("binary_little_endian", "binary_big_endian", "ascii")
XYZ = [("x", "f8"), ("y", "f8"), ("z", "f8")]


def vertices(num_points: int = 40, kind: list[tuple[str, str]] | None = None, seed: int = 0) -> np.ndarray:
    """Random rows; whole numbers where the type is one."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(
        num_points, kind or [*XYZ, ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("label", "i4")]
    )
    for name in rows.dtype.names or ():
        rows[name] = rng.random(num_points) * 100
    return rows


def write(folder: Path, content: bytes) -> str:
    path = folder / "a.ply"
    path.write_bytes(content)
    return str(path)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("faces", [0, 3])
def test_every_encoding_gives_the_same_points(tmp_path: Path, encoding: str, faces: int) -> None:
    rows = vertices()
    path = write(tmp_path, ply_bytes(rows, encoding, faces))
    header, cloud = read_header(path), read_cloud(path)
    assert header.num_points == 40
    assert header.format == f"PLY {encoding.replace('_', ' ')}"
    assert header.attributes == ("red", "green", "blue", "classification")
    np.testing.assert_array_equal(cloud.xyz, np.stack([rows["x"], rows["y"], rows["z"]], axis=1))
    np.testing.assert_array_equal(cloud.attributes["green"], rows["green"].astype(int) * 257)
    np.testing.assert_array_equal(cloud.attributes["classification"], rows["label"])
    assert cloud.crs is None


@given(
    encoding=st.sampled_from(ENCODINGS),
    xyz=st.lists(st.tuples(*[st.floats(-1e9, 1e9, allow_nan=False)] * 3), min_size=1, max_size=12),
)
def test_coordinates_come_back_exactly(
    encoding: str, xyz: list[tuple[float, float, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.getbasetemp(), ply_bytes(np.array(xyz, XYZ), encoding))
    assert read_cloud(path).xyz.tolist() == [list(point) for point in xyz]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_chunks_add_up(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = vertices(95, [*XYZ, ("intensity", "f4")])
    path = write(tmp_path, ply_bytes(rows, encoding, 2))
    whole = read_cloud(path)
    monkeypatch.setattr(ply, "CHUNK_POINTS", 10)
    assert [len(cloud) for cloud in iterate_clouds(path)] == [10] * 9 + [5]
    np.testing.assert_array_equal(read_cloud(path).xyz, whole.xyz)
    np.testing.assert_array_equal(read_cloud(path).attributes["intensity"], whole.attributes["intensity"])
    inside = [cloud.xyz for cloud in iterate_clouds(path, (20.0, 0.0, 60.0, 50.0))]
    expected = whole.xyz[(whole.xyz[:, 0] >= 20) & (whole.xyz[:, 0] < 60) & (whole.xyz[:, 1] < 50)]
    np.testing.assert_array_equal(np.concatenate(inside), expected)


def test_elements_before_the_vertices_are_passed_over(tmp_path: Path) -> None:
    for encoding in ENCODINGS:
        content = ply_bytes(vertices(5, XYZ), encoding)
        at = content.index(b"element vertex")
        start = content.index(b"end_header\n") + 11
        camera = b"7 8\n" if encoding == "ascii" else bytes(8)
        declared = b"element camera 1\nproperty float a\nproperty float b\n"
        path = write(tmp_path, content[:at] + declared + content[at:start] + camera + content[start:])
        np.testing.assert_array_equal(read_cloud(path).xyz[:, 0], vertices(5, XYZ)["x"])


@pytest.mark.parametrize("path", real_files("indoor/exemplary.ply"))
def test_a_real_file(path: Path) -> None:
    cloud = read_cloud(str(path))
    assert len(cloud) == 86_357
    assert set(cloud.attributes) == {"red", "green", "blue"}


def test_32_bit_coordinates_far_from_the_origin_are_reported(tmp_path: Path) -> None:
    rows = vertices(4, [("x", "f4"), ("y", "f4"), ("z", "f4")])
    notes: list[str] = []
    read_cloud(write(tmp_path, ply_bytes(rows)), notes.append)
    assert not any("32-bit" in note for note in notes)
    rows["y"] += 6_862_000
    read_cloud(write(tmp_path, ply_bytes(rows)), notes.append)
    assert any("rounds them to 0.5" in note for note in notes)


# --- headers as they come in the wild

LATIN = "Société géodésique".encode("latin-1")


def changed_header(content: bytes, change: str) -> bytes:
    """A file whose header says the same in another way; the data stay."""
    end = content.index(b"end_header\n") + 11
    head, data = content[:end], content[end:]
    lines = head.split(b"\n")
    changes = {
        "trailing spaces": lambda: b" \n".join(lines[:-1]) + b"\n",
        "tabs and indents": lambda: head.replace(b" ", b"\t").replace(b"property", b"  property"),
        "blank lines": lambda: b"\n\n".join(lines[:-2]) + b"\n \n" + lines[-2] + b"\n",
        "CR LF": lambda: head.replace(b"\n", b"\r\n"),
        "CR LF but at the end": lambda: head.replace(b"\n", b"\r\n")[:-2] + b"\n",
        "CR LF at the end alone": lambda: head[:-1] + b"\r\n",
        "CR": lambda: head.replace(b"\n", b"\r"),
        "a comment before the format": lambda: head.replace(b"ply\n", b"ply\ncomment first\n", 1),
        "Latin-1": lambda: head.replace(b"made", LATIN),
        "UTF-8": lambda: head.replace(b"made", LATIN.decode("latin-1").encode()),
        "obj_info": lambda: head.replace(b"comment made", b"obj_info " + LATIN),
        "an end inside a comment": lambda: head.replace(b"made", b"end_header"),
        "a line that is no comment": lambda: head.replace(b"element", b"(second line of it)\nelement", 1),
        "a long comment": lambda: head.replace(b"made", b"made " * 30_000),
        "a byte order mark": lambda: b"\xef\xbb\xbf" + head,
        "types with sizes": lambda: head.replace(b"double", b"float64").replace(b"uchar", b"uint8"),
        "a name with a space": lambda: head.replace(b"red", b"scalar_Original cloud"),
        "a name in Latin-1": lambda: head.replace(b"red", "Höhe".encode("latin-1")),
    }
    return changes[change]() + data


CHANGES = (
    "trailing spaces", "tabs and indents", "blank lines", "CR LF", "CR LF but at the end", "CR LF at the end alone",
    "CR", "a comment before the format", "Latin-1", "UTF-8", "obj_info", "an end inside a comment",
    "a line that is no comment", "a long comment", "a byte order mark", "types with sizes", "a name with a space",
    "a name in Latin-1",
)  # fmt: skip


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_header_in_other_words_is_the_same(tmp_path: Path, change: str, encoding: str) -> None:
    rows = vertices()
    path = write(tmp_path, changed_header(ply_bytes(rows, encoding), change))
    cloud = read_cloud(path)
    np.testing.assert_array_equal(cloud.xyz, np.stack([rows["x"], rows["y"], rows["z"]], axis=1))
    np.testing.assert_array_equal(cloud.attributes["classification"], rows["label"])
    write_exported(path, str(tmp_path / "out.ply"), np.full(40, 6, np.uint8), np.ones(40), LabelOptions(), {})
    np.testing.assert_array_equal(read_cloud(str(tmp_path / "out.ply")).xyz, cloud.xyz)
    if change in ("Latin-1", "obj_info"):
        assert LATIN in (tmp_path / "out.ply").read_bytes()


def test_a_text_file_of_the_old_macintosh(tmp_path: Path) -> None:
    path = write(tmp_path, ply_bytes(vertices(), "ascii").replace(b"\n", b"\r"))
    np.testing.assert_array_equal(read_cloud(path).xyz[:, 2], vertices()["z"])


def test_lists_before_the_vertices_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ply, "_PIECE_BYTES", 16)
    declared = b"element face 3\nproperty list uchar short a\nproperty float b\nproperty list int uchar c\n"
    faces = [([1, 2, 3], 0.5, [7]), ([], 1.5, []), ([4], 2.5, [1, 2, 3, 4, 5])]
    for encoding in ENCODINGS:
        order = "<" if "little" in encoding else ">"
        data = b"".join(
            struct.pack(f"{order}B{len(a)}hfi{len(c)}B", len(a), *a, b, len(c), *c) for a, b, c in faces
        )
        if encoding == "ascii":
            data = b"3 1 2 3 0.5 1 7\n0 1.5 0\n1 4 2.5 5 1 2 3 4 5\n"
        content = ply_bytes(vertices(5, XYZ), encoding)
        at, end = content.index(b"element vertex"), content.index(b"end_header\n") + 11
        path = write(tmp_path, content[:at] + declared + content[at:end] + data + content[end:])
        np.testing.assert_array_equal(read_cloud(path).xyz[:, 0], vertices(5, XYZ)["x"])
        if encoding != "ascii":
            cut = write(tmp_path, content[:at] + declared + content[at:end] + data[:20])
            with pytest.raises(ScanError, match="the file ends") as error:
                read_cloud(cut)
            assert_one_sentence(error, cut)


# --- bad files

GOOD, TEXT = ply_bytes(vertices()), ply_bytes(vertices(), "ascii")
HEAD = TEXT[: TEXT.index(b"end_header\n") + 11]
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "does not begin with a PLY header"),
    "no header": (b"<html>404</html>" * 50, "does not begin with a PLY header"),
    "no end": (GOOD[:100], "does not begin with a PLY header that ends"),
    "truncated": (GOOD[:-1], "promises 40 vertices"),
    "truncated text": (TEXT[: TEXT.rindex(b"\n", 0, -20)], "promises 40 vertices, the file holds 39"),
    "four billion": (GOOD.replace(b"vertex 40", b"vertex 4294967295"), "promises 4294967295"),
    "four billion lines": (TEXT.replace(b"vertex 40", b"vertex 4294967295"), "promises 4294967295"),
    "negative": (GOOD.replace(b"vertex 40", b"vertex -1"), "promises -1"),
    "no number": (GOOD.replace(b"vertex 40", b"vertex many"), "cannot be understood"),
    "list": (GOOD.replace(b"double x", b"list uchar double x"), "is a list; .*: write its vertices without"),
    "misspelt": (GOOD.replace(b"property double y", b"proprety double y"), r"have no y"),
    "misspelt attribute": (
        GOOD.replace(b"property uchar", b"proprety uchar", 1),
        "understood .proprety uchar red",
    ),
    "endless": (GOOD[: GOOD.index(b"end_header")] + b"comment x\n" * 500_000, "header that ends"),
    "no name": (GOOD.replace(b"property double y", b"property double"), "without a name"),
    "no x": (GOOD.replace(b"double x", b"double u"), "no x"),
    "twice": (GOOD.replace(b"property double y", b"property double x"), "names a property twice"),
    "type": (GOOD.replace(b"double x", b"quadruple x"), "cannot be understood"),
    "no vertices": (GOOD.replace(b"element vertex", b"element corner"), "no element 'vertex'"),
    "version": (GOOD.replace(b"1.0\n", b"2.0\n", 1), "version 1.0"),
    "words": (HEAD + b"1 2 x 4 5 6 7\n" * 40, "could not convert string 'x'"),
    "short line": (HEAD + b"1 2 3\n" * 200, "have 3 numbers, not 7"),
    "beyond a byte": (HEAD + b"1 2 3 4 5 256 7\n" * 40, "'blue' goes beyond 0 to 255"),
    "nothing": (ply_bytes(vertices(0)), "holds no points"),
    "nan": (ply_bytes(np.array([(0, 1, np.nan), (1, 2, 3)], XYZ)), "1 of 2 points have NaN"),
}


def test_a_line_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ply, "_PIECE_BYTES", 1000)
    path = write(tmp_path, HEAD + b"1 2 3 4 5 6 7 " * 5000)
    with pytest.raises(ScanError, match="number of columns changed"):
        read_cloud(path)
    text = write(tmp_path, ply_bytes(vertices(200), "ascii"))
    np.testing.assert_array_equal(read_cloud(text).xyz[:, 1], vertices(200)["y"])


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_sentence(tmp_path: Path, case: str) -> None:
    content, expected = BAD[case]
    path = write(tmp_path, content)
    with pytest.raises(ScanError, match=expected) as error:
        read_cloud(path)
    assert_one_sentence(error, path)


@given(
    changes=st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), min_size=1, max_size=6),
    text=st.booleans(),
)
def test_a_damaged_header_is_a_cloud_or_one_sentence(
    changes: list[tuple[int, int]], text: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(TEXT if text else GOOD)
    for at, value in changes:
        content[at] = value
    path = write(tmp_path_factory.getbasetemp(), bytes(content))
    try:
        outcome: int | str = len(read_cloud(path))
    except ScanError as error:
        outcome = str(error)
    assert isinstance(outcome, int) or (path in outcome and "\n" not in outcome)

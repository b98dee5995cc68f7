"""What a PLY header says, and that what is written is understood."""

from __future__ import annotations

import io

import numpy as np
import pytest
from pyproj import CRS

from pointcloud.errors import ScanError
from pointcloud.formats.ply_header import PlyHeader, encode, header_bytes, labelled_comment, read_ply_header

WILD = (
    b"ply \r\ncomment t\xe9st  \r\n\r\nformat binary_big_endian 1.0\r\nobj_info num_cols 3\r\n"
    b"element camera 2\r\nproperty list uchar int16 ids\r\n  property\tfloat32 f\r\n"
    b"element vertex 5\r\nproperty double x\r\nproperty uchar Original cloud index\r\nsecond line\r\n"
    b"comment labelled by Pointloom: classification confidence\r\nend_header\r\n\n\r\n"
)


def read(content: bytes) -> PlyHeader:
    return read_ply_header("a.ply", io.BytesIO(content))


def test_all_of_a_header_is_read() -> None:
    header = read(WILD)
    assert header.encoding == "binary_big_endian"
    assert WILD[header.size :] == b"\n\r\n", "the data begin with a line feed of their own"
    camera, vertex = header.elements
    assert (camera.name, camera.count, camera.lists, camera.fewest_bytes) == ("camera", 2, ("ids",), 5)
    assert header.vertex is vertex
    assert [(p.name, p.dtype.str) for p in vertex.properties] == [
        ("x", ">f8"),
        ("Original cloud index", "|u1"),
    ]
    assert [encode(line) for line in header.comments][:2] == [b"comment t\xe9st", b"obj_info num_cols 3"]
    assert header.strange_lines == ("second line",)
    assert header.labelled == {"classification", "confidence"}
    assert header.delivered_comments[1:] == ("obj_info num_cols 3", "comment second line")
    assert header.crs is None


def test_capital_letters_are_no_matter() -> None:
    content = (
        b"PLY\nformat ascii 1.0\nelement Vertex 2\nproperty Double X\nproperty UChar label\nend_header\n"
    )
    vertex = read(content).vertex
    assert vertex is not None
    assert [(p.name, p.dtype.str) for p in vertex.properties] == [("X", "<f8"), ("label", "|u1")]


def test_what_is_written_is_read() -> None:
    dtype = np.dtype([("x", "<f8"), ("n", "<u2"), ("c", "u1")])
    comments = [*read(WILD).delivered_comments, labelled_comment(["c", "n"])]
    content = header_bytes(dtype, 7, CRS("EPSG:2154"), comments)
    header = read(content + b"data")
    assert header.size == len(content)
    assert header.crs == CRS("EPSG:2154")
    assert header.labelled == {"c", "n"}
    assert header.comments[: len(comments)] == tuple(comments)
    assert b"t\xe9st" in content
    assert [(p.name, p.dtype.str) for p in header.vertex.properties] == [
        ("x", "<f8"),
        ("n", "<u2"),
        ("c", "|u1"),
    ]
    again = header_bytes(dtype, 7, CRS("EPSG:25832"), header.comments)
    assert read(again).crs == CRS("EPSG:2154"), "a CRS that is named stays"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"ply\nformat ascii 1.0\n", "header that ends"),
        (b"plywood\nformat ascii 1.0\nend_header\n", "does not begin with a PLY header"),
        (b"ply\nend_header\n", "PLY header of version 1.0"),
        (b"ply\nformat ascii 1.1\nend_header\n", "PLY header of version 1.0"),
        (b"ply\nformat binary_middle_endian 1.0\nend_header\n", "PLY header of version 1.0"),
        (b"ply\nproperty float x\nformat ascii 1.0\nend_header\n", r"understood \(property float x\)"),
        (b"ply\nformat ascii 1.0\nelement vertex\nend_header\n", r"understood \(element vertex\)"),
        (b"ply\nformat ascii 1.0\nelement v\xf6 1e9\nend_header\n", "cannot be understood"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty list x\nend_header\n", "cannot be understood"),
    ],
)
def test_what_is_no_header_is_one_sentence(content: bytes, expected: str) -> None:
    with pytest.raises(ScanError, match=rf"cannot read scan 'a\.ply': .*{expected}"):
        read(content)

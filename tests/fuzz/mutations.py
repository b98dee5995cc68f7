"""What the fuzzer does to a sound file: bits, lengths, numbers, text, and the fields that headers lie in."""

from __future__ import annotations

import json
import re
import struct
from random import Random
from typing import Any

INTEGERS = (
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    256,
    32767,
    65535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**63 - 1,
    2**64 - 1,
)
DOUBLES = (0.0, -0.0, 1e-300, 1e300, -1e300, float("nan"), float("inf"), float("-inf"), 1e16)
TEXTS = (
    b"",
    b"../../outside",
    b"/etc/passwd",
    b"\xff\xfe\x00",
    b"nan",
    b"1e999",
    b"-1",
    b"99999999999999999999",
    b"\n",
)
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2**63, 1e308, float("nan"), float("inf"), "", "../../outside.txt", "/etc/passwd", "a\x00b",
    "x" * 100_000, [], {}, [[]] * 3, {"a": {"b": None}}, "file:///etc/passwd", "\ud800",
)  # fmt: skip
# Offsets and formats of the LAS 1.4 header (LAS 1.4 R16, table 3): sizes, counts, scales, bounds, records.
LAS_FIELDS = (
    (24, "B"), (25, "B"), (94, "H"), (96, "I"), (100, "I"), (104, "B"), (105, "H"), (107, "I"), (131, "d"), (139, "d"),
    (155, "d"), (171, "d"), (179, "d"), (187, "d"), (227, "Q"), (235, "Q"), (243, "I"), (247, "Q"), (375 + 18, "H"),
    (375 + 20, "H"),
)  # fmt: skip

# Fields of the LASzip record (its specification, "LAZ VLR"): compressor, coder, version, options, points of a chunk,
# special records, number of items, and the first items' type, size and version.
LASZIP_FIELDS = (
    (0, "H"), (2, "H"), (4, "B"), (5, "B"), (6, "H"), (8, "I"), (12, "I"), (16, "q"), (24, "q"), (32, "H"), (34, "H"),
    (36, "H"), (38, "H"), (40, "H"), (42, "H"), (44, "H"),
)  # fmt: skip
NAMES = (
    b"h\xf6he", b"..", b"...", b"a b", b"a\nb", b"-x", b"'", b'"', b"%s", b"{0}", b"~", b"$HOME", b"*", b"[a]", b"?",
    b"a" * 240, "日本".encode(), "o\u0308".encode(), b"\xff\xfe", b"a\tb", b"file:", b"s3:", b"C:", b"|", b"#a",
    b"a?b=c",
)  # fmt: skip


def name(random: Random) -> bytes:
    """A file's name without its suffix: all that Linux allows in one, most of it seen in the wild."""
    pieces = (*NAMES, random.randbytes(random.randrange(1, 40)).replace(b"/", b"").replace(b"\0", b""))
    return b"".join(random.choice(pieces) for _ in range(random.choice((1, 1, 2))))


def mutate(name: str, data: bytes, random: Random) -> bytes:
    """A damaged copy of a file's content; `name` ends as the file does, which says where its header lies."""
    ways = [_flip, _truncate, _overwrite, _insert, _delete, _swap, _number_of_text]
    if name.endswith((".las", ".laz")):
        ways += [_las_field] * 4
    if name.endswith(".laz"):
        ways += [_laszip_field] * 3 + [_chunk_table] * 2
    if name.endswith(".json"):
        ways += [_json_value] * 6
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = random.choice(ways)(data, random)
    return data


def _place(data: bytes, random: Random) -> int:
    # Headers are short and files are long: half of the damage is done to the first kilobyte.
    return random.randrange(max(1, min(len(data), 1024 if random.random() < 0.5 else len(data))))


def _flip(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 8, 64))):
        if changed:
            changed[_place(data, random)] ^= 1 << random.randrange(8)
    return bytes(changed)


def _truncate(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def _overwrite(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    if random.random() < 0.3:
        piece = struct.pack("<d", random.choice(DOUBLES))
    else:
        kind, size = random.choice((("B", 8), ("H", 16), ("I", 32), ("Q", 64)))
        piece = struct.pack(random.choice("<>") + kind, random.choice(INTEGERS) % 2**size)
    return data[:at] + piece + data[at + len(piece) :]


def _insert(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    piece = random.choice((*TEXTS, random.randbytes(random.randrange(1, 64)), data[at : at + 300]))
    return data[:at] + piece + data[at:]


def _delete(data: bytes, random: Random) -> bytes:
    at = _place(data, random)
    return data[:at] + data[at + random.choice((1, 2, 7, 64, 1000)) :]


def _swap(data: bytes, random: Random) -> bytes:
    at, size = _place(data, random), random.choice((1, 8, 100))
    return data[:at] + data[at + size : at + 2 * size] + data[at : at + size] + data[at + 2 * size :]


def _number_of_text(data: bytes, random: Random) -> bytes:
    numbers = list(re.finditer(rb"-?\d+(\.\d+)?", data[:4096]))
    if not numbers:
        return data
    number = random.choice(numbers)
    return data[: number.start()] + random.choice(TEXTS) + data[number.end() :]


def _laszip_field(data: bytes, random: Random) -> bytes:
    record = data.find(b"laszip encoded")
    at, kind = random.choice(LASZIP_FIELDS)
    return _number(data, record - 2 + 54 + at, kind, random) if record >= 0 else data


def _chunk_table(data: bytes, random: Random) -> bytes:
    """A lie in the place of the chunk table, its version or its number of chunks, or in what follows."""
    if len(data) < 104:
        return data
    (points_at,) = struct.unpack_from("<I", data, 96)
    (table_at,) = struct.unpack_from("<q", data, points_at) if points_at + 8 <= len(data) else (0,)
    at, kind = random.choice(((points_at, "q"), (table_at, "I"), (table_at + 4, "I"), (table_at + 8, "I")))
    return _number(data, at, kind, random)


def _las_field(data: bytes, random: Random) -> bytes:
    return _number(data, *random.choice(LAS_FIELDS), random)


def _number(data: bytes, at: int, kind: str, random: Random) -> bytes:
    """A number of a kind of `struct` at a place of a file, where the file reaches as far."""
    value = (
        random.choice(DOUBLES)
        if kind == "d"
        else random.choice(INTEGERS) % 2 ** (8 * struct.calcsize(f"<{kind}"))
    )
    piece = struct.pack(f"<{kind.upper() if kind != 'd' else kind}", value)
    return data[:at] + piece + data[at + len(piece) :] if 0 <= at < len(data) - len(piece) else data


def _json_value(data: bytes, random: Random) -> bytes:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places = list(_places(document))
    if not places:
        return data
    holder, key = random.choice(places)
    if random.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = random.choice(VALUES)
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _places(node: Any) -> Any:
    for key in list(node) if isinstance(node, dict) else range(len(node)):
        yield node, key
        if isinstance(node[key], dict | list):
            yield from _places(node[key])

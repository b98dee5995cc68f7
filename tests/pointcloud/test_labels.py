"""Label schemes: codes to classes and back, and schemes that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointcloud.errors import SchemaError, StorageError
from pointcloud.labels import (
    FIRST_SET,
    IGNORE,
    PRESETS,
    ClassLabel,
    LabelScheme,
    PartialLabel,
    Producer,
    find_scheme,
)
from tests.support.clouds import assert_one_sentence

# ASPRS LAS 1.4 R16, table 17.
ASPRS = {
    "ground": 2, "low vegetation": 3, "medium vegetation": 4, "high vegetation": 5, "building": 6, "water": 9,
    "wire": 14, "transmission tower": 15, "bridge deck": 17,
}  # fmt: skip
# Armeni et al. 2016, in the order every published evaluation uses.
S3DIS = (
    "ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa", "bookcase",
    "board", "clutter",
)  # fmt: skip


def one(name: str = "a", codes: tuple[int, ...] = (1,), code: int = 1) -> ClassLabel:
    return ClassLabel(name, codes, code, "#123456")


def test_presets_are_what_the_standards_say() -> None:
    assert {c.name: c.code for c in PRESETS["asprs"].classes} == ASPRS
    assert all(c.source_codes == (c.code,) for c in PRESETS["asprs"].classes)
    for name in ("asprs-basic", "ground-vegetation-building"):
        for label in PRESETS[name].classes:
            expected = (3, 4, 5) if label.name == "vegetation" else (ASPRS[label.name],)
            assert label.source_codes == expected
            assert label.code in expected
    assert PRESETS["s3dis"].names == S3DIS
    assert [c.code for c in PRESETS["s3dis"].classes] == list(range(13))


@pytest.mark.parametrize("scheme", PRESETS.values(), ids=list(PRESETS))
def test_presets_come_back_from_json_and_their_output_reads_as_their_classes(scheme: LabelScheme) -> None:
    assert LabelScheme.from_dict(json.loads(json.dumps(scheme.to_dict()))) == scheme
    classes = np.arange(len(scheme))
    np.testing.assert_array_equal(scheme.to_indices(scheme.to_codes(classes)), classes)
    assert scheme.to_codes(classes).dtype == np.uint8
    assert len(set(scheme.colours)) == len(scheme)


@given(
    codes=st.lists(st.integers(0, 255), max_size=50),
    groups=st.lists(st.integers(0, 255), unique=True, min_size=1, max_size=20),
)
def test_every_code_has_its_class_or_none(codes: list[int], groups: list[int]) -> None:
    scheme = LabelScheme("s", tuple(one(f"c{i}", tuple(groups[i::3])) for i in range(min(3, len(groups)))))
    found = scheme.to_indices(np.array(codes, np.uint8))
    assert found.dtype == np.int8
    expected = [
        next((i for i, c in enumerate(scheme.classes) if code in c.source_codes), IGNORE) for code in codes
    ]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ((), "has no class"),
        ((one("a"), one("a", (2,))), "class name 'a' twice"),
        ((one("a", (1, 2)), one("b", (2,))), "source code 2 twice"),
        ((one("a", (3, 3)),), "source code 3 twice"),
        ((one("a", (256,)),), "code 256"),
        ((one("a", (-1,)),), "code -1"),
        ((one("a", (1,), 300),), "code 300"),
        (tuple(one(str(i), (i,)) for i in range(128)), "128 classes"),
    ],
)
def test_impossible_schemes_are_refused(classes: tuple[ClassLabel, ...], words: str) -> None:
    with pytest.raises(SchemaError, match=words) as error:
        LabelScheme("mine", classes)
    assert_one_sentence(error, "mine")


def test_as_many_classes_as_class_indices_allow() -> None:
    scheme = LabelScheme("many", tuple(one(str(i), (i,), i) for i in range(127)))
    assert scheme.to_indices(np.arange(256, dtype=np.uint8)).max() == 126


def test_find_scheme_by_name_by_file_and_neither(tmp_path: Path) -> None:
    assert find_scheme("asprs") is PRESETS["asprs"]
    mine = LabelScheme("mine", (one("rail", (10,), 10), one("rest", (0, 1, 2), 1)))
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(mine.to_dict()))
    assert find_scheme(str(path)) == mine
    with pytest.raises(SchemaError, match="asprs-basic") as error:
        find_scheme("asprs-advanced")
    assert_one_sentence(error, "asprs-advanced")


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", "3", '{"name": "a", "classes": []}', '{"name": "a", "classes": [{"name": "b"}]}',
     '{"name": "a", "classes": [{"name": "b", "source_codes": ["x"], "code": 1, "colour": ""}]}',
     '{"name": "a", "classes": [{"name": "b", "source_codes": 7, "code": 1, "colour": ""}]}'],
)  # fmt: skip
def test_json_that_is_no_scheme_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(SchemaError):
        find_scheme(str(path))


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text("classes:\n- ground\n")
    with pytest.raises(StorageError, match=r"bad\.json"):
        find_scheme(str(path))


def partial_scheme() -> LabelScheme:
    return LabelScheme(
        "mine",
        (one("ground", (2,), 2), one("tree", (5,), 5), one("roof", (6,), 6)),
        (PartialLabel((1, 3), ("tree", "roof")),),
        (
            Producer("towns", ("town/*.laz",), ((1, ("ground",)), (9, ("tree", "ground")))),
            Producer("all other", ("*.ply",), ((0, ("ground",)),)),
        ),
    )


def test_a_code_may_allow_several_classes() -> None:
    scheme, codes = partial_scheme(), np.array([0, 1, 2, 3, 6, 9], np.uint8)

    assert scheme.sets == ((0, 1), (1, 2))
    assert scheme.to_labels(codes, "a.laz").tolist() == [IGNORE, FIRST_SET - 1, 0, FIRST_SET - 1, 2, IGNORE]
    assert scheme.to_indices(codes, "a.laz").tolist() == [IGNORE, IGNORE, 0, IGNORE, 2, IGNORE]


def test_a_producer_has_codes_of_its_own() -> None:
    scheme, codes = partial_scheme(), np.array([0, 1, 2, 3, 6, 9], np.uint8)

    assert scheme.to_labels(codes, "town/a.laz").tolist() == [IGNORE, 0, IGNORE, IGNORE, IGNORE, FIRST_SET]
    assert scheme.to_labels(codes, "b.ply").tolist() == [0, *[IGNORE] * 5]


def test_partial_labels_come_back_from_json_and_a_scheme_without_them_says_nothing_of_them() -> None:
    scheme = partial_scheme()

    assert LabelScheme.from_dict(json.loads(json.dumps(scheme.to_dict()))) == scheme
    assert PRESETS["asprs"].to_dict().keys() == {"name", "classes"}


def test_noise_that_a_code_of_a_producer_means_is_no_noise() -> None:
    scheme = LabelScheme("s", (one(),), producers=(Producer("p", ("*",), ((7, ("a",)),)),))

    assert scheme.noise_codes == (18,)


@pytest.mark.parametrize(
    ("partial", "producers", "what"),
    [
        ((PartialLabel((2,), ("a", "b")),), (), "source code 2 twice"),
        ((PartialLabel((9,), ("a", "c")),), (), "allows 'c', expected some of its classes: a, b"),
        ((PartialLabel((9,), ()),), (), "allows 'nothing'"),
        ((), (Producer("p", ("*",), ((300, ("a",)),)),), "code 300, expected codes from 0 to 255"),
        ((), (Producer("p", ("*",), ((1, ("c",)),)),), "allows 'c'"),
    ],
)
def test_partial_labels_that_cannot_be(
    partial: tuple[PartialLabel, ...], producers: tuple[Producer, ...], what: str
) -> None:
    with pytest.raises(SchemaError, match=what):
        LabelScheme("s", (one("a", (1,), 1), one("b", (2,), 2)), partial, producers)


def test_a_string_where_a_list_of_names_is_expected_is_refused() -> None:
    record = partial_scheme().to_dict() | {"partial": [{"source_codes": [1], "classes": "tree"}]}

    with pytest.raises(SchemaError, match="expected a list of names, found 'tree'"):
        LabelScheme.from_dict(record)

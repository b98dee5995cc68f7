"""Inputs whose names are hard to work with: read where that can be, else set aside one by one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pointcloud.errors import StorageError
from pointcloud.storage import files, inputs

LAS = (".las", ".laz")
STRANGE = {
    b"h\xf6he.las": "not UTF-8", b"sub\xff/a.las": "not UTF-8", b"n" * 251 + b".las": "255 bytes",
    ("ö" * 121).encode() + b".las": "246 bytes",
}  # fmt: skip
ODD = (
    "line\nbreak.las", "it's.las", 'say "a".las', "-x.las", "~home.las", "100%.las", "a,b;c&d.las", "tab\t.las",
    " .las", "A.las", "a.las", "back\\slash.las", "curly{0}.las", "höhe.las", "日本.las", "n" * 230 + ".las",
)  # fmt: skip


def test_a_name_that_cannot_be_worked_with_is_set_aside_and_the_rest_found(tmp_path: Path) -> None:
    for name in (*STRANGE, *map(str.encode, ODD)):
        path = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        Path(os.fsdecode(path)).write_bytes(b"x")
    for pattern in (str(tmp_path), str(tmp_path / "**")):
        found = inputs.expand([pattern], LAS)
        assert sorted(source.name for source in found if not source.fault) == sorted(ODD)
        for source in found:
            if source.fault:
                assert source.fault.endswith("rename it.")
                files.write_bytes(str(tmp_path / "out" / f"{source.name}.parquet"), b"x")
            else:
                assert files.read_bytes(source.uri) == b"x"
        faults = [source.fault for source in found if source.fault]
        assert len(faults) == len(STRANGE)
        for said in STRANGE.values():
            assert any(said in fault for fault in faults)
        assert any("h\\xf6he.las" in fault for fault in faults)
        shutil.rmtree(tmp_path / "out")


def test_a_path_that_is_not_utf8_is_set_aside_where_it_is_named_itself(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"h\xf6he")))
    folder.mkdir()
    (folder / "a.las").write_bytes(b"x")
    for pattern in (str(folder), str(folder / "a.las")):
        (source,) = inputs.expand([pattern], LAS)
        assert source.name == "a.las"
        assert "h\\xf6he/a.las' is not UTF-8" in source.fault
    with pytest.raises(StorageError, match="nothing at"):
        inputs.expand([str(folder / "no.las")], LAS)
    (folder / "a\nb.las").write_bytes(b"x")
    (source,) = inputs.expand([str(folder / "a\nb.las")], LAS)
    assert r"h\xf6he/a\nb.las' is not UTF-8" in source.fault
    with pytest.raises(StorageError, match="is not UTF-8; rename it"):
        files.write_bytes(str(folder / "b"), b"x")

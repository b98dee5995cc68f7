"""Names that differ in case alone, in folders that tell them apart and in one that does not, made of a link."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointcloud.errors import PointloomError
from pointcloud.storage.letter_case import check_case, ignores_case

NAMES = ("a/x.las", "a/y.las", "a/X.las")


def test_a_folder_that_tells_them_apart_takes_both(tmp_path: Path) -> None:
    check_case(NAMES, str(tmp_path / "out"))
    assert not ignores_case(str(tmp_path / "new" / "out"))


def test_a_folder_that_does_not_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "OUT").symlink_to(tmp_path / "out")
    assert ignores_case(str(tmp_path / "out"))
    assert ignores_case(str(tmp_path / "out" / "1")), "which is not made yet"
    with pytest.raises(
        PointloomError, match=r"'a/x\.las' and 'a/X\.las' differ in small and capital letters"
    ):
        check_case(NAMES, str(tmp_path / "out"))
    check_case(NAMES[:2], str(tmp_path / "out"))

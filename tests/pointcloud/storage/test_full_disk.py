"""A full disk: a sentence of its own, no defect of the scan that was being written, and nothing half-written."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lazrs
import numpy as np
import pytest

from pointcloud.delivery.las_copy import write_labelled
from pointcloud.errors import StorageError
from pointcloud.storage import files
from tests.support.clouds import assert_one_sentence, write_las


@contextmanager
def no_room_beyond(num_bytes: int) -> Iterator[None]:
    """Files that grow no further, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize("num_bytes", [0, 1000, 20_000, 80_000])
def test_a_full_disk_is_no_defect_of_the_scan_whose_copy_is_written(
    tmp_path: Path, suffix: str, num_bytes: int
) -> None:
    scan, out = write_las(tmp_path / f"scan{suffix}", 6000), tmp_path / "out"
    codes, sure = np.ones(6000, np.uint8), np.ones(6000, np.float32)
    write_labelled(str(scan), str(tmp_path / f"whole{suffix}"), codes, sure)
    assert (tmp_path / f"whole{suffix}").stat().st_size > num_bytes
    with no_room_beyond(num_bytes), pytest.raises(StorageError, match="File too large") as error:
        write_labelled(str(scan), str(out / f"scan{suffix}"), codes, sure)
    assert_one_sentence(error, f"cannot write '{out}")
    assert not list(out.iterdir())


def test_an_encoder_that_fails_on_a_disk_with_room_keeps_its_error(tmp_path: Path) -> None:
    uri = str(tmp_path / "x.laz")

    def fail() -> None:
        with files.staged(uri) as part:
            part.write_bytes(b"half")
            raise lazrs.LazrsError("Failed to call flush")

    with pytest.raises(lazrs.LazrsError):
        fail()
    with no_room_beyond(100), pytest.raises(StorageError, match="File too large"):
        fail()

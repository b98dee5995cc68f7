"""The broken files are as broken as they say: what laspy itself makes of them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import laspy
import numpy as np
import pytest

from tests.support import broken_files
from tests.support.broken_files import LETHAL, NUM_POINTS, PANICS, SOUND, SUSPECT, UNREADABLE, Writer

EVERY = (*SOUND, *SUSPECT, *UNREADABLE, *PANICS, *LETHAL)

READ = """
import sys, laspy
try:
    laspy.read(sys.argv[1])
except BaseException as error:
    print(type(error).__name__, isinstance(error, Exception))
"""


def name(writer: Writer) -> str:
    return writer.__name__


def read_in_a_child(path: Path, cpu_s: int) -> tuple[int, str]:
    """Exit status and output of a process that reads the file with 3 GB of addresses and some CPU seconds."""

    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=limits,
        # One thread: stacks of many would fill the address space by themselves.
        env={**os.environ, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    return done.returncode, done.stdout.strip()


def test_every_file_is_in_a_group() -> None:
    writers = {
        value
        for value in vars(broken_files).values()
        if callable(value) and getattr(value, "__annotations__", {}) == {"folder": "Path", "return": "Path"}
    }
    assert writers == set(EVERY)
    assert len(EVERY) == len(writers), "no file is in two groups"


@pytest.mark.parametrize("writer", EVERY, ids=name)
def test_files_are_named_documented_tiny_and_always_the_same(writer: Writer, tmp_path: Path) -> None:
    path = writer(tmp_path)
    assert path.parent == tmp_path
    assert path.stem == writer.__name__
    assert path.suffix in (".las", ".laz")
    assert writer.__doc__
    data = path.read_bytes()
    assert len(data) < 50_000
    assert writer(tmp_path).read_bytes() == data


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_the_file_they_are_made_from_is_good(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"good{suffix}"
    path.write_bytes(broken_files.good(suffix))
    las = laspy.read(path)
    assert len(las) == NUM_POINTS
    assert np.isfinite(las.xyz).all()
    assert set(np.unique(las.classification)) == {2, 5, 6}


def test_sound_files_read(tmp_path: Path) -> None:
    assert len(laspy.read(broken_files.zero_points(tmp_path))) == 0
    assert laspy.read(broken_files.one_point(tmp_path)).xyz.shape == (1, 3)


def test_suspect_files_read_without_complaint(tmp_path: Path) -> None:
    extent = np.ptp(laspy.read(broken_files.huge_extent(tmp_path)).xyz, axis=0)
    assert extent[:2].min() > 9e8
    assert np.isnan(laspy.read(broken_files.nan_scale(tmp_path)).x).all()
    assert not np.isfinite(laspy.read(broken_files.infinite_scale(tmp_path)).x).any()
    for writer, held in ((broken_files.lying_count, 0), (broken_files.half_las, 500)):
        las = laspy.read(writer(tmp_path))
        assert (las.header.point_count, len(las)) == (NUM_POINTS, held)


@pytest.mark.parametrize("writer", UNREADABLE, ids=name)
def test_unreadable_files_raise(writer: Writer, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"."):
        laspy.read(writer(tmp_path))


@pytest.mark.parametrize("writer", PANICS, ids=name)
def test_panics_are_no_exceptions(writer: Writer, tmp_path: Path) -> None:
    assert read_in_a_child(writer(tmp_path), cpu_s=20) == (0, "PanicException False")


@pytest.mark.parametrize("writer", LETHAL, ids=name)
def test_lethal_files_end_the_process(writer: Writer, tmp_path: Path) -> None:
    # 3 s of CPU for a file of 40 kB: the endless one would still be reading records.
    status, output = read_in_a_child(writer(tmp_path), cpu_s=3)
    assert status < 0, f"ended by a signal, not by {output}"

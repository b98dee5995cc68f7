"""What happens in an isolated process stays there: crashes, endless loops, hunger for memory."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from pointcloud.errors import ScanError, StorageError
from tasks.runtime import isolation
from tasks.runtime.isolation import IsolatedProcesses, isolated
from tests.support.clouds import assert_one_sentence


def double(number: int) -> int:
    return 2 * number


def pid() -> int:
    return os.getpid()


def crash() -> None:
    ctypes.string_at(0)


def abort() -> None:
    os.abort()


def leave() -> None:
    os._exit(3)


def hang() -> None:
    time.sleep(600)


def devour() -> int:
    return len([np.empty(1 << 27) for _ in range(10)])


def refuse() -> None:
    raise ScanError("no points.")


def miss() -> None:
    raise StorageError("nothing there.")


def fill() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def stumble() -> None:
    raise KeyError("x")


@pytest.fixture(scope="module")
def one() -> Iterator[IsolatedProcesses]:
    with isolated(1, memory_mb=1500, time_limit_s=2.0) as processes:
        yield processes


def test_calls_share_a_process(one: IsolatedProcesses) -> None:
    assert one.call(double, 21) == 42
    assert one.call(pid) == one.call(pid) != os.getpid()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (crash, "its decoder crashed (SIGSEGV)"),
        (leave, "its decoder crashed (it exited)"),
        (abort, "more memory than the limit of 1500 MB (its process ended with SIGABRT)"),
        (devour, "more memory than the limit of 1500 MB"),
        (hang, "more than the limit of 2 s"),
        (stumble, "failed unexpectedly (KeyError: 'x')"),
        (refuse, "no points."),
    ],
)
def test_an_end_is_one_sentence_and_the_next_call_works(
    one: IsolatedProcesses, function: Callable[[], object], said: str
) -> None:
    with pytest.raises(ScanError) as error:
        one.call(function)
    assert_one_sentence(error, said)
    assert one.call(double, 4) == 8


def test_a_process_that_is_late_to_start_takes_nothing_from_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slow_to_import.py").write_text("import time\ntime.sleep(3)\ndef answer(): return 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    with isolated(1, memory_mb=1500, time_limit_s=1.5) as processes:
        assert processes.call(import_module("slow_to_import").answer) == 42


def test_a_process_that_never_starts_is_the_fault_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "_STARTING_SECONDS", 0.01)
    with isolated(1, memory_mb=1500, time_limit_s=60.0) as processes, pytest.raises(StorageError) as error:
        processes.call(double, 4)
    assert_one_sentence(error, "this machine did not start a process")


def test_what_is_no_fault_of_the_scan_keeps_its_kind(one: IsolatedProcesses) -> None:
    with pytest.raises(StorageError, match="nothing there"):
        one.call(miss)
    with pytest.raises(StorageError, match="No space left on device; make room there") as error:
        one.call(fill)
    assert_one_sentence(error, tempfile.gettempdir())


def test_threads_have_processes_of_their_own() -> None:
    with isolated(2, 1500, 30.0) as processes, ThreadPoolExecutor(2) as threads:
        crashed = threads.submit(processes.call, crash)
        doubled = [threads.submit(processes.call, double, n) for n in range(20)]
        assert [future.result(30) for future in doubled] == [2 * n for n in range(20)]
        with pytest.raises(ScanError):
            crashed.result(30)


def write_late(started: str, written: str) -> None:
    Path(started).write_text(str(os.getpid()))
    time.sleep(20)
    Path(written).write_text("by a process that nobody waits for any more")


def test_a_process_whose_owner_is_killed_in_the_middle_of_a_call_ends_and_writes_nothing(
    tmp_path: Path,
) -> None:
    started, written = tmp_path / "started", tmp_path / "written"
    script = (
        "from tasks.runtime.isolation import IsolatedProcesses; "
        "from tests.tasks.runtime.test_isolation import write_late; "
        f"IsolatedProcesses(1, 1500, 60.0).call(write_late, {str(started)!r}, {str(written)!r})"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], cwd=Path(__file__).parents[3])
    deadline = time.monotonic() + 60
    while not (started.exists() and started.read_text()):
        assert owner.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    owner.kill()
    owner.wait()
    child = Path("/proc", started.read_text(), "stat")
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert not written.exists()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.1)
    assert not written.exists()


def test_no_process_is_left() -> None:
    with isolated(1, 1500, 30.0) as processes:
        child = processes.call(pid)
        assert Path(f"/proc/{child}").exists()
    assert not Path(f"/proc/{child}").exists()


def threads_of_decoders() -> tuple[int, str | None]:
    import pyarrow as pa

    return pa.cpu_count(), os.environ.get("RAYON_NUM_THREADS")


def test_decoders_have_as_many_threads_as_asked_for_and_the_caller_keeps_its_own() -> None:
    before = threads_of_decoders()
    with isolated(1, 1500, 30.0, threads=1) as processes:
        assert processes.call(threads_of_decoders) == (1, "1")
    assert threads_of_decoders() == before

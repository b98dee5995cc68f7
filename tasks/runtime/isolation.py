"""Isolated processes in which files of unknown origin are decoded, under limits of memory and of time.

A decoder can panic, abort, run for ever or ask for all the memory there is. In a process of its own that ends
the call it happened in and nothing else; the next call gets a new process.
"""

from __future__ import annotations

import gc
import os
import queue
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from pointcloud.errors import PointloomError, ScanError, StorageError, first_line

HEAP = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "134217728"}
"""Columns and row groups come and go by the megabyte: glibc keeps their pages instead of having them zeroed anew."""

_START = "from tasks.runtime.isolation import serve; serve({}, {}, {})"
_STARTING_SECONDS = 120.0
_ENDING_SECONDS = 5.0


class IsolatedProcesses:
    """A pool of processes, each of which runs one call at a time; for use by several threads.

    Args:
        num_processes: calls that can run at once.
        memory_mb: what a process may allocate; more is a MemoryError in it, or its end.
        time_limit_s: how long a call may take once its process has begun it; that a busy machine or a slow disk is
            late to start a Python is no fault of the scan.
        threads: of Arrow and of the LAZ decoder in each process; None: as many as they take by themselves.
    """

    def __init__(
        self, num_processes: int, memory_mb: int, time_limit_s: float, threads: int | None = None
    ) -> None:
        self._memory_mb, self._time_limit_s, self._threads = memory_mb, time_limit_s, threads
        self._idle: queue.SimpleQueue[_Process | None] = queue.SimpleQueue()
        for _ in range(num_processes):
            self._idle.put(None)
        self._num_processes = num_processes

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(*arguments), both picklable, in a process of its own.

        Raises:
            ScanError: the process ended, took too long, or had too little memory.
            StorageError: this machine did not start a process in time.
            PointloomError: what the function raised.
        """
        process = self._idle.get()
        try:
            if process is None:
                process = _Process(self._memory_mb, self._threads)
            result = process.call(function, arguments, self._time_limit_s)
        except _Ended as ended:
            process = None
            raise self._error(ended) from None
        finally:
            self._idle.put(process)
        if isinstance(result, MemoryError):
            raise self._error(_Ended(None))
        if isinstance(result, Exception):
            raise result
        return result

    def prepare(self, module: str) -> threading.Thread:
        """Let a process import what calls will need; returns a thread that ends when it has."""

        def begin() -> None:
            with suppress(PointloomError):  # the first real call reports the error
                self.call(_import, module)

        thread = threading.Thread(target=begin, daemon=True)
        thread.start()
        return thread

    def _error(self, ended: _Ended) -> PointloomError:
        if ended.never_began:
            return StorageError(
                f"this machine did not start a process to read scans in within {_STARTING_SECONDS:g} s; start the flow "
                "again when it has less to do."
            )
        if ended.took_too_long:
            return ScanError(
                f"reading it took more than the limit of {self._time_limit_s:g} s; deliver it again, leave it out, or "
                "raise time_limit_s."
            )
        if ended.signal in (None, signal.SIGABRT, signal.SIGKILL):
            how = (
                ""
                if ended.signal is None
                else f" (its process ended with {signal.Signals(ended.signal).name})"
            )
            return ScanError(
                f"reading it needs more memory than the limit of {self._memory_mb} MB{how}, as damaged files do; "
                "deliver it again, leave it out, or raise memory_mb."
            )
        return ScanError(
            f"its decoder crashed ({signal.Signals(ended.signal).name if ended.signal > 0 else 'it exited'}), as on "
            "damaged files; deliver it again or leave it out."
        )

    def close(self) -> None:
        """End all processes; calls still running in other threads fail."""
        for _ in range(self._num_processes):
            try:
                process = self._idle.get(timeout=_ENDING_SECONDS)
            except queue.Empty:
                return
            if process is not None:
                process.end()


@contextmanager
def isolated(
    num_processes: int, memory_mb: int, time_limit_s: float, threads: int | None = None
) -> Iterator[IsolatedProcesses]:
    """`IsolatedProcesses` that end when the context does."""
    processes = IsolatedProcesses(num_processes, memory_mb, time_limit_s, threads)
    try:
        yield processes
    finally:
        processes.close()


class _Ended(Exception):
    """A process ended by a signal (its number; 0 for a plain exit, None for a lack of memory), or was too slow."""

    def __init__(self, number: int | None, took_too_long: bool = False, never_began: bool = False) -> None:
        self.signal, self.took_too_long, self.never_began = number, took_too_long, never_began


class _Process:
    """A new Python with a connection. A process of `multiprocessing` would first run the user's own script again."""

    def __init__(self, memory_mb: int, threads: int | None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START.format(theirs.fileno(), memory_mb, threads)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env={
                    **os.environ,
                    **HEAP,
                    "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
                },
            )
        self._connection = Connection(ours.detach())

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], time_limit_s: float) -> Any:
        try:
            self._connection.send((function, arguments))
            began = self._connection.poll(_STARTING_SECONDS)
            if began:
                self._connection.recv()
                if self._connection.poll(time_limit_s):
                    return self._connection.recv()
        except (EOFError, OSError):
            try:
                code = self._process.wait(_ENDING_SECONDS)
            except subprocess.TimeoutExpired:
                code = 0
            self.end()
            raise _Ended(max(-code, 0)) from None
        self.end()
        raise _Ended(None, took_too_long=began, never_began=not began)

    def end(self) -> None:
        self._process.kill()
        self._process.wait(_ENDING_SECONDS)
        self._connection.close()


def scratch_sentence(error: OSError) -> str:
    """The sentence on a disk for temporary files that fails."""
    reason = first_line(error)
    return (
        f"this machine's temporary files cannot be kept in {tempfile.gettempdir()!r}: {reason}; make room there, or "
        "name a larger disk with TMPDIR."
    )


def _import(module: str) -> None:
    import_module(module)


def _bound_threads(threads: int) -> None:
    # Set here and not by the library functions that decode: a function does not change its caller's process.
    pa.set_cpu_count(threads)
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # of the LAZ decoder, which reads it when it starts


def _end_with_the_other_side(handle: int) -> None:
    """End this process when the one that started it does, however that ends and also in the middle of a call.

    A process that stayed would write the file of a scan that another process works on by then. (Linux's own signal
    for this, PR_SET_PDEATHSIG, comes too early: when the thread ends that started this process.)
    """

    def watch() -> None:
        hung_up = select.poll()
        hung_up.register(handle, 0)  # nothing but the end of the connection
        hung_up.poll()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def serve(handle: int, memory_mb: int, threads: int | None) -> None:
    """The loop of a process: it runs calls one after the other, until the process that sends them has ended."""
    _end_with_the_other_side(handle)
    if threads is not None:
        _bound_threads(threads)
    connection = Connection(handle)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the flow's to handle
    resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(None)  # begun: what the function needs is imported
        except OSError:
            return
        gc.freeze()  # modules stay: looking through them for garbage takes longer than reading a small scan
        try:
            result = function(*arguments)
        except (PointloomError, MemoryError) as error:
            result = error
        except OSError as error:
            # An error of a decoder is a ScanError by now, so this one is of the disk for temporary files.
            result = StorageError(scratch_sentence(error))
        except Exception as error:  # an error in Pointloom: the scan is named, the batch goes on  # noqa: BLE001
            result = ScanError(f"reading it failed unexpectedly ({type(error).__name__}: {error}).")
        try:
            connection.send(result)
        except OSError:  # who asked is gone
            return

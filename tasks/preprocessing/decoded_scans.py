"""The scans that a run has decoded: each once, shared by all scans that need it, deleted when no scan does."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from pyproj import CRS

from pointcloud.blocks.decoded import DecodedScan
from pointcloud.dataset.preprocessing import PreprocessConfig, read_scan
from pointcloud.errors import ScanError
from pointcloud.storage import inputs
from pointcloud.storage.ledger import key_of
from tasks.runtime.isolation import IsolatedProcesses


@contextmanager
def scratch_folder(out: str) -> Iterator[Path]:
    """A local folder for the decoded scans of a run, below TMPDIR; who calls it holds the lock on the dataset `out`.

    What a killed run left there is removed first.
    """
    folder = Path(tempfile.gettempdir()) / f"pointloom-decoded-{key_of(out, os.getuid())[:16]}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class DecodedScans:
    """Decodes scans when they are first asked for; for use by several threads.

    Args:
        sources: the scans, by name.
        needed: scan that is cut -> the decoded scans that this takes, its own among them.
        folder: local, empty, for this run alone.
        crs: scan -> the CRS that it is read in, of those that are not read in what their files say.
    """

    def __init__(
        self,
        sources: Mapping[str, inputs.Source],
        needed: Mapping[str, Sequence[str]],
        config: PreprocessConfig,
        folder: Path,
        processes: IsolatedProcesses,
        crs: Mapping[str, CRS] | None = None,
    ) -> None:
        self._crs = crs or {}
        self._sources, self._needed, self._config = sources, needed, config
        self._folder, self._processes = folder, processes
        self._lock = threading.Lock()
        self._found: dict[str, Future[DecodedScan | ScanError]] = {}
        self._users = Counter(scan for scans in needed.values() for scan in scans)

    def of(self, scan: str) -> tuple[DecodedScan, list[DecodedScan]]:
        """A decoded scan and those of its neighbours that can be read.

        Raises:
            ScanError: the scan itself cannot be read.
            StorageError: one of them cannot be reached; asking again tries again.
        """
        scans = self._needed[scan]
        for each in scans:  # first the scans that no other thread decodes, then wait for the others
            self._read(each)
        found = {each: self._found[each].result() for each in scans}
        own = found.pop(scan)
        if isinstance(own, ScanError):
            raise own
        return own, [decoded for decoded in found.values() if isinstance(decoded, DecodedScan)]

    def release(self, scan: str) -> None:
        """Note that a scan is cut, or cannot be; decoded scans that no other scan waits for are removed."""
        with self._lock:
            self._users.subtract(self._needed[scan])
            unused = [each for each in self._needed[scan] if self._users[each] == 0 and each in self._found]
            decoded_scans = [self._found.pop(each).result() for each in unused]
        for decoded in decoded_scans:
            if isinstance(decoded, DecodedScan):
                decoded.path.unlink(missing_ok=True)

    def _read(self, scan: str) -> None:
        with self._lock:
            if scan in self._found:
                return
            future = self._found[scan] = Future()
        try:
            future.set_result(
                self._processes.call(
                    read_scan, self._sources[scan], self._config, self._folder, self._crs.get(scan)
                )
            )
        except ScanError as error:
            future.set_result(error)
        except BaseException as error:
            with self._lock:
                del self._found[scan]
            future.set_exception(error)
            raise

"""Looking at many scans from outside, each where a header that lies can end nothing but its own process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pointcloud import storage
from pointcloud.errors import ScanError
from pointcloud.preprocess import Examined, examine
from tasks.isolation import IsolatedProcesses


def examine_all(
    sources: Sequence[storage.Source], processes: IsolatedProcesses, num_readers: int
) -> dict[str, Examined]:
    """Scan -> its header and what tells its content apart, some at a time.

    Raises:
        StorageError: a scan cannot be reached.
    """

    def one(source: storage.Source) -> Examined:
        try:
            found: Examined = processes.call(examine, source)
        except ScanError as error:  # its process ended over the header
            sentence = f"cannot read scan {source.uri!r}: {error}"
            return Examined(storage.fingerprint(source.uri), None, sentence)
        return found

    with ThreadPoolExecutor(num_readers) as readers:
        return dict(zip((source.name for source in sources), readers.map(one, sources), strict=True))

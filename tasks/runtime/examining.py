"""Looking at many scans from outside, each where a header that lies can end nothing but its own process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pointcloud.dataset.preprocessing import Examined, examine, fingerprint_of
from pointcloud.errors import ScanError, StorageError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.storage import inputs
from pointcloud.storage.ledger import key_of
from tasks.runtime.isolation import IsolatedProcesses


def examine_all(
    sources: Sequence[inputs.Source],
    processes: IsolatedProcesses,
    num_readers: int,
    unreached: dict[str, str] | None = None,
    given: GivenCrs | None = None,
) -> dict[str, Examined]:
    """Scan -> its header and what tells its content apart, some at a time.

    Args:
        given: CRSs and units of scans, in place of what their files say.
        unreached: takes the scans that cannot be reached, each with the reason, and they are left out.

    Raises:
        StorageError: a scan cannot be reached, and there is no such place for it.
    """

    def one(source: inputs.Source) -> Examined | None:
        try:
            return look(source)
        except StorageError as error:
            if unreached is None:
                raise
            unreached[source.name] = str(error)
            return None

    def look(source: inputs.Source) -> Examined:
        if source.fault:
            return Examined(key_of(source.name), None, source.fault)
        try:
            found: Examined = processes.call(examine, source, given)
        except ScanError as error:  # its process ended over the header
            sentence = f"cannot read scan {source.uri!r}: {error}"
            return Examined(fingerprint_of(source.uri), None, sentence)
        return found

    with ThreadPoolExecutor(num_readers) as readers:
        found = zip(sources, readers.map(one, sources), strict=True)
        return {source.name: examined for source, examined in found if examined is not None}

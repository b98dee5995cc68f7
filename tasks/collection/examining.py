"""Reading the headers of many scans, each in an isolated process, since a false header may crash its reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from pointcloud.dataset.preprocessing import Examined, examine, fingerprint_of
from pointcloud.errors import ScanError, StorageError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.storage import inputs
from pointcloud.storage.contents import Contents
from pointcloud.storage.ledger import key_of
from tasks.runtime.isolation import IsolatedProcesses


def examine_all(
    sources: Sequence[inputs.Source],
    processes: IsolatedProcesses,
    num_readers: int,
    given: GivenCrs,
    before: Mapping[str, Contents],
) -> tuple[dict[str, Examined], dict[str, str]]:
    """Look at scans from outside, some at a time.

    Args:
        given: CRSs and units of scans, in place of what their files say.
        before: scan -> what its files held when they were last read.

    Returns:
        Scan -> its header and what tells its content apart; scan -> why it cannot be reached, of the others.
    """

    def one(source: inputs.Source) -> Examined | StorageError:
        try:
            return look(source)
        except StorageError as error:
            return error

    def look(source: inputs.Source) -> Examined:
        if source.fault:
            return Examined(key_of(source.name), None, source.fault)
        known = before.get(source.name)
        try:
            found: Examined = processes.call(examine, source, given, known)
        except ScanError as error:  # its process ended over the header
            fingerprint, contents = fingerprint_of(source.uri, known)
            return Examined(fingerprint, None, f"cannot read scan {source.uri!r}: {error}", contents=contents)
        return found

    examined, unreached = dict[str, Examined](), dict[str, str]()
    with ThreadPoolExecutor(num_readers) as readers:
        for source, found in zip(sources, readers.map(one, sources), strict=True):
            if isinstance(found, StorageError):
                unreached[source.name] = str(found)
            else:
                examined[source.name] = found
    return examined, unreached

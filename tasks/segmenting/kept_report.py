"""What the report of the last run was made from: where nothing has changed, the maps of all scans are not read again.

It lies beside the ledger, `<folder>/ledger/segment.report.json`, and is no more than a hint: without it, or where it is
damaged, the report is made.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from pointcloud.errors import StorageError
from pointcloud.storage import files, ledger
from tasks.segmenting.job import SegmentJob


def identity(records: Sequence[ledger.Record], job: SegmentJob, options: Any, remarks: Sequence[str]) -> str:
    """Hash of all that the report of a run tells, but for the time and what that run had to do.

    Args:
        records: of all scans.
        job: of the run.
        options: the dataclass of the report's options.
        remarks: about the collection.
    """
    told = sorted((r.scan, r.key, r.state, r.error, r.path, r.points_in, r.seconds) for r in records)
    version = importlib.metadata.version("pointloom")
    return ledger.key_of(version, told, job.out, job.checkpoint, job.identity, asdict(options), list(remarks))


def keep(out: str, of: str, markdown: str) -> None:
    """Note what a report was made from, and what the Prefect UI shows of it. Raises StorageError."""
    files.write_json(_uri(out), {"identity": of, "markdown": markdown})


def kept(out: str, of: str) -> str:
    """What the Prefect UI showed of the report that was made from the same; empty without one that is still there."""
    try:
        noted = files.read_json(_uri(out)) if files.exists(_uri(out)) else {}
        there = files.exists(files.join(out, "report.html")) and files.list_files(files.join(out, "review"))
        markdown = noted["markdown"] if there and noted["identity"] == of else ""
    except (StorageError, TypeError, KeyError):
        return ""
    return markdown if isinstance(markdown, str) else ""


def _uri(out: str) -> str:
    return files.join(out, "ledger", "segment.report.json")

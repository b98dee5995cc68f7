"""Which scans a run of segment works on; its own labelled clouds are left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from pointcloud.delivery.las_copy import output_name
from pointcloud.errors import PointloomError
from pointcloud.formats import reader
from pointcloud.formats.las import SUFFIXES
from pointcloud.storage import files, inputs, ledger
from tasks.report.figures import counted
from tasks.segmenting.job import STAGE


def find_scans(
    patterns: list[str],
    out: str,
    cloud_format: str = "same",
    report: Callable[[str], None] = lambda _: None,
) -> list[inputs.Source]:
    """The scans that match paths, folders and globs, without those of an out folder that lies in such a folder.

    Args:
        cloud_format: of the labelled clouds, one of `pointcloud.labelling.options.FORMATS`.
        report: is told in one sentence what is left out.

    Raises:
        StorageError: nothing there, two scans with one name, or an out folder that cannot be reached.
        PointloomError: the labelled clouds would overwrite their scans, or each other, or are all there is, or cannot
            be of that format.
    """
    found, outputs = reader.find_scans(patterns), dict[str, inputs.Source]()
    made = _labelled_before(found, out)
    sources = [source for source in found if not _is_within(source, out) and source.name not in made]
    if not sources:
        raise PointloomError(
            f"all {len(found)} scans found lie in the out folder {out!r}; give the folder of the scans, or another out "
            "folder."
        )
    if len(sources) < len(found):
        report(
            f"left out as labelled clouds, not scans: {counted(len(found) - len(sources), 'file', 'files')} below the "
            f"out folder {out!r}."
        )
    others = [source for source in sources if not source.name.lower().endswith(SUFFIXES)]
    if others and cloud_format in ("las", "laz"):
        raise PointloomError(
            f"scan {others[0].uri!r} is neither LAS nor LAZ, so its labelled cloud cannot be {cloud_format}; choose "
            "the format same (PLY for such scans), ply or parquet, or leave it out."
        )
    for source in sources:
        name = output_name(source.name, cloud_format)
        other = outputs.setdefault(name, source)
        if other is not source:
            raise PointloomError(
                f"{other.uri!r} and {source.uri!r} would both become {name!r}; label them into two folders."
            )
        if files.same(source.uri, files.join(out, name)):
            raise PointloomError(
                f"the labelled cloud would overwrite its scan {source.uri!r}; give another out folder."
            )
    return sources


def _labelled_before(sources: Sequence[inputs.Source], out: str) -> set[str]:
    """Names of those in the out folder itself that an earlier run has made of other scans, as its ledger says."""
    there = {s.name for s in sources if files.same(s.uri, files.join(out, *s.name.split("/")))}
    records = ledger.read_all(out, STAGE).values() if there else ()
    return {record.path for record in records if record.path in there and record.path != record.scan}


def _is_within(source: inputs.Source, out: str) -> bool:
    """Whether a source lies in the out folder, and was found by looking into a folder above that."""
    (filesystem, path), (other, folder) = files.resolve(source.uri), files.resolve(out)
    if files.is_local(out):
        path, folder = os.path.realpath(path), os.path.realpath(folder)
    inside = path.removeprefix(f"{folder.rstrip('/')}/")
    return filesystem == other and inside != path and len(source.name) > len(inside)

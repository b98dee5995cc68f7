"""The command that shows what scans are. It is no flow: it runs at once, without Prefect, and writes nothing."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any

from cyclopts import Parameter

from pointcloud.errors import PointloomError, StorageError
from pointcloud.formats.given_crs import GivenCrs
from pointcloud.formats.reader import find_scans
from pointcloud.quality.inspect import Inspection, inspect_scan
from pointcloud.storage.inputs import Source
from tasks.collection.outage import Outage, left_sentence, try_again
from tasks.runtime.cpus import usable_cpus
from tasks.runtime.isolation import isolated


def command(
    scans: Annotated[list[str], Parameter(negative_iterable=())],
    *,
    read: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    crs: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    units: Annotated[list[str] | None, Parameter(negative_iterable=())] = None,
    memory_mb: int = 3000,
    time_limit_s: float = 3600.0,
) -> None:
    """Show what scans hold and the block sizes that suit them; the exit status is not 0 where one cannot be used.

    Args:
        scans: files, folders, globs or S3DIS room folders; local paths or s3://, gs://, abfs:// URIs.
        read: read every point: all classes are counted, and damage is found wherever it is.
        as_json: print a list of JSON objects, one per scan, those that cannot be used with an error.
        crs: CRS in place of what the files say, such as EPSG:2154; for some scans as GLOB=EPSG:2154.
        units: unit in place of what the files say, m, ft or us-ft, horizontal and vertical as m,us-ft; for some scans
            as GLOB=us-ft.
        memory_mb: a scan whose reading needs more memory than this cannot be used; the others are looked at.
        time_limit_s: a scan whose reading takes longer than this cannot be used; the others are looked at.
    """
    given = GivenCrs.parse(crs or [], units or [])
    sources = find_scans(scans)
    given.check(source.name for source in sources)
    records, bad = [], 0
    every = _inspect_all(sources, read, given, memory_mb, time_limit_s)
    for source, found in zip(sources, every, strict=True):
        if isinstance(found, str):
            bad += 1
            records.append({"scan": source.uri, "error": found})
            if not as_json:
                print(_printable(f"error: {found}\n"), file=sys.stderr)
            continue
        records.append(found.to_dict())
        if not as_json:
            print(_printable(describe(found)), end="\n\n")
    if as_json:
        print(json.dumps(_without_nan(records), indent=2, allow_nan=False))
    if bad:
        raise PointloomError(f"{bad} of {len(sources)} scans cannot be used, for the reasons above.")


def _inspect_all(
    sources: Sequence[Source], read: bool, given: GivenCrs, memory_mb: int, time_limit_s: float
) -> Iterator[Inspection | str]:
    """What each scan is, or in a sentence why it cannot be used, in their order, some looked at side by side."""
    num_processes, outage = min(usable_cpus(), len(sources)), Outage()

    with (
        isolated(num_processes, memory_mb, time_limit_s, 1) as processes,
        ThreadPoolExecutor(num_processes) as readers,
    ):

        def look(source: Source) -> Inspection | str:
            if source.fault:
                return source.fault
            if outage.ends_the_run:
                return left_sentence(source.uri)
            inspection = partial(processes.call, inspect_scan, source.uri, read, given, source.name)
            try:
                found: Inspection | str = try_again(inspection)
            except PointloomError as error:
                found = (
                    str(error) if source.uri in str(error) else f"cannot read scan {source.uri!r}: {error}"
                )
                outage.note(isinstance(error, StorageError))
            else:
                outage.note(False)
            return found

        yield from readers.map(look, sources)


def _without_nan(value: Any) -> Any:
    """A value as JSON can hold it: NaN and infinity become null."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _printable(text: str) -> str:
    """Text that every terminal can show: bytes of file names that are not UTF-8 become escapes."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def describe(inspection: Inspection) -> str:
    """One scan as lines of text."""
    record = inspection.to_dict()
    extent = " × ".join(f"{length:,.2f}" for length in record["extent_m"])
    units = record["unit"]
    rows = [
        ("format", record["format"]),
        ("points", f"{record['points']:,}"),
        ("extent", f"{extent} m"),
        ("density", _density(inspection)),
        ("CRS", record["crs"] or "none"),
        ("units", f"horizontal {units['horizontal']}, vertical {units['vertical']}"),
        ("attributes", ", ".join(record["attributes"]) or "none but coordinates"),
        ("dimensions", ", ".join(record["dimensions"])),
    ]
    if record["resolution"]:
        rows.append(("resolution", " × ".join(f"{step:g}" for step in record["resolution"]) + " CRS units"))
    config = record["block_config"]
    if config:
        rows.append(
            (
                "would use",
                f"--tile-size-m {config['tile_size_m']:g} --halo-m {config['halo_m']:g} "
                f"--voxel-size-m {config['voxel_size_m']:g} --ground-window-m {config['ground_window_m']:g}",
            )
        )
    sample = f"of the first {record['points_read']:,} points" if inspection.is_sample else "of all points"
    for number, label in enumerate(record["classes"] or []):
        share = label["points"] / record["points_read"]
        name = f"{label['code']:>3} {label['name']:<24} {label['points']:>14,} {share:>7.2%}"
        rows.append((f"classes {sample}" if number == 0 else "", name))
    if not record["classes"]:
        rows.append(("classes", "none"))
    rows += [("note" if number == 0 else "", note) for number, note in enumerate(record["notes"])]
    width = max(len(name) for name, _ in rows)
    return "\n".join([record["scan"], *(f"  {name:<{width}}  {value}".rstrip() for name, value in rows)])


def _density(inspection: Inspection) -> str:
    if inspection.density is None:
        return "unknown"
    area = "the ground it covers" if inspection.is_covered else "its bounding box"
    density = f"{inspection.density:,.0f}" if inspection.density >= 100 else f"{inspection.density:.3g}"
    return f"{density} points per m² of {area}, {inspection.area_m2:,.0f} m²"

"""What scans are, before anything is done with them. No flow: it runs at once and leaves nothing behind."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from cyclopts import Parameter

from pointcloud.errors import PointloomError, StorageError
from pointcloud.formats.reader import find_scans
from pointcloud.quality.inspect import Inspection, inspect_scan


def command(
    scans: Annotated[list[str], Parameter(negative_iterable=())],
    *,
    read: Annotated[bool, Parameter(negative=())] = False,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Show what scans hold and the block sizes that suit them; the exit status is not 0 where one is no use.

    Args:
        scans: files, folders, globs or S3DIS room folders; local paths or s3://, gs://, abfs:// URIs.
        read: read every point: all classes are counted, and damage is found wherever it is.
        as_json: print a list of JSON objects, one per scan, those that are no use with an error.
    """
    records, bad = [], 0
    sources = find_scans(scans)
    for source in sources:
        try:
            inspection = inspect_scan(source.uri, read)
        except StorageError:
            raise
        except PointloomError as error:
            bad += 1
            records.append({"scan": source.uri, "error": str(error)})
            if not as_json:
                print(f"error: {error}\n", file=sys.stderr)
            continue
        records.append(inspection.to_dict())
        if not as_json:
            print(describe(inspection), end="\n\n")
    if as_json:
        print(json.dumps(records, indent=2, allow_nan=False))
    if bad:
        raise PointloomError(f"{bad} of {len(sources)} scans cannot be used, for the reasons above.")


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

"""Part of a scan as a scan of its own."""

from __future__ import annotations

from copy import deepcopy

import laspy
import numpy as np

from pointcloud.errors import ScanError
from pointcloud.formats.las import iterate_chunks, open_scan
from pointcloud.storage import files


def write_window(
    scan_uri: str, out_uri: str, x_min: float, x_max: float, classification: int | None = None
) -> int:
    """Copy the points of a scan with x_min ≤ x < x_max, in CRS units; the number of points written.

    Args:
        classification: set for every point, as in a scan delivered without classes; None keeps what there is.

    Raises:
        ScanError: the scan cannot be read, or has no point in the window.
    """
    written = 0
    with files.staged(out_uri) as local_path, open_scan(scan_uri) as reader:
        header = deepcopy(reader.header)
        compress = out_uri.lower().endswith(".laz")
        with laspy.open(str(local_path), mode="w", header=header, do_compress=compress) as writer:
            for chunk in iterate_chunks(scan_uri, reader):
                x = np.asarray(chunk.x)
                inside = chunk[(x >= x_min) & (x < x_max)]
                if classification is not None:
                    inside.classification = np.full(len(inside), classification, np.uint8)
                writer.write_points(inside)
                written += len(inside)
        if not written:
            raise ScanError(
                f"scan {scan_uri!r} has no point with {x_min} ≤ x < {x_max}; choose another window."
            )
    return written

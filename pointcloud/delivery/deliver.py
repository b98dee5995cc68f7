"""A labelled cloud of one scan: what is decoded for it, and how its labels are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyproj import CRS

from pointcloud.blocks.decoded import DecodedScan, decode_scan
from pointcloud.cloud import CHUNK_POINTS
from pointcloud.crs import metres_per_unit
from pointcloud.delivery import table_copy
from pointcloud.delivery.extra_dimensions import ENTROPY, probability_dimensions
from pointcloud.delivery.las_copy import check_copy, write_labelled
from pointcloud.delivery.proof import Written
from pointcloud.delivery.table_copy import write_exported
from pointcloud.formats.las import SUFFIXES, open_scan
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labelling.label_points import allocate
from pointcloud.labelling.options import LabelOptions
from pointcloud.labels import LabelScheme


def decode_for_labels(
    scan: str,
    uri: str,
    path: Path,
    config: BlockConfig,
    scheme: LabelScheme,
    options: LabelOptions | None = None,
    crs: CRS | None = None,
) -> DecodedScan:
    """Decode all points of a scan into a local file, after a check that its labelled cloud can hold the labels.

    Decoders of damaged files may end the process, here and in `write_labels`: call both in a process of their own.

    Args:
        scan: its name.
        uri: where it is.
        path: where its points go.
        config: how blocks are cut.
        scheme: the classes that will be written.
        options: what else will be written; None: the defaults.
        crs: in place of what the scan's file says of its CRS.

    Raises:
        ScanError: the scan cannot be read, or a copy of it cannot hold the codes or the added dimensions.
    """
    if uri.lower().endswith(SUFFIXES):
        with open_scan(uri) as reader:
            check_copy(uri, reader.header, scheme, options)
    return decode_scan(scan, uri, path, config, every_point=True, noise_codes=scheme.noise_codes, crs=crs)


def decode_beside(
    scan: str, uri: str, path: Path, config: BlockConfig, decoded: DecodedScan, crs: CRS | None = None
) -> DecodedScan:
    """The points of a neighbouring scan that the tiles, halos, heights and outliers of a decoded scan may depend on.

    Args:
        scan, uri: the neighbour's.
        path: where its points go.
        config: how blocks are cut.
        decoded: the scan that it lies beside.
        crs: of the neighbour, in place of what its file says.

    Raises:
        ScanError: it cannot be read, or has no point there.
    """
    metres = metres_per_unit(decoded.crs)[0]
    # Two ground cells, each a third of the window wide, tell a height; outliers there depend on the next ones.
    window_m = config.ground_window_m * (2 if config.excludes_noise else 1)
    reach = (2 * config.tile_size_m + config.halo_m + window_m) / metres
    (x_min, y_min), (x_max, y_max) = decoded.extent[:, :2].tolist()
    window = (x_min - reach, y_min - reach, x_max + reach, y_max + reach)
    return decode_scan(scan, uri, path, config, window, noise_codes=decoded.noise_codes, crs=crs)


def write_labels(
    scan_uri: str, out_uri: str, folder: Path, scheme: LabelScheme, options: LabelOptions
) -> Written:
    """Write the labelled cloud of a scan from the arrays of `label_points`; the scan is decoded twice for it.

    Args:
        scan_uri: the scan.
        out_uri: where the cloud appears; its suffix says the format.
        folder: of the arrays, which has room for one more, of a byte a point.
        scheme: the classes.
        options: what is written.

    Returns:
        The number of points written with each class code, and the proof that all else is the scan's.

    Raises:
        ScanError: the scan cannot be read, or the format cannot hold what it has.
        PointloomError: what was written differs from the scan (nothing is kept then).
    """
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    measures = {ENTROPY: arrays["entropy"]} if options.entropy else {}
    if options.probabilities:
        measures |= zip(probability_dimensions(scheme), arrays["probabilities"].T, strict=True)
    classes = arrays["classes"]
    # A byte a point is too much for memory where there are a thousand million of them.
    codes = allocate(folder, "codes", classes.shape, np.dtype(np.uint8))
    for at in range(0, len(classes), CHUNK_POINTS):
        codes[at : at + CHUNK_POINTS] = scheme.to_codes(classes[at : at + CHUNK_POINTS])
    write = write_exported if out_uri.lower().endswith(table_copy.SUFFIXES) else write_labelled
    return write(scan_uri, out_uri, codes, arrays["confidence"], options, measures, arrays.get("noise"))

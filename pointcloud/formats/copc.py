"""Reading a window of a COPC file (Cloud Optimized Point Cloud 1.0) through its octree.

A COPC file is a LAZ file whose chunks are the nodes of an octree, and a table says which cube of space each covers:
only the nodes that a window meets are read and decoded. As a whole it is read as any other LAZ.
"""

from __future__ import annotations

from collections.abc import Iterator

import lazrs
import numpy as np
import pyarrow as pa
from laspy import DecompressionSelection, PackedPointRecord, ScaleAwarePointRecord
from laspy.copc import Bounds, CopcReader, Entry, HierarchyPage, VoxelKey

from pointcloud.cloud import CHUNK_POINTS, Columns, ScanHeader
from pointcloud.formats import las
from pointcloud.formats.decoding import reading, unreadable
from pointcloud.formats.las_extra_bytes import describe_points, read_extra_bytes
from pointcloud.formats.las_header import for_laspy
from pointcloud.storage import files


def iterate_columns(
    header: ScanHeader, x_min: float, y_min: float, x_max: float, y_max: float
) -> Iterator[Columns]:
    """The points of all nodes that meet a window, in the order of the file; not all of them lie in it.

    laspy's own query decodes all nodes at once and trusts the table; here they come a chunk's worth at a time.

    Raises:
        ScanError: a damaged file, or a table that names nodes outside of it.
    """
    # A point's coordinates are rounded, and that may move it out of its node.
    step = header.resolution if header.resolution is not None else np.zeros(3)
    window = Bounds(np.array([x_min, y_min, -np.inf]) - step, np.array([x_max, y_max, np.inf]) + step)
    with files.open_input(header.uri) as stream, reading(header.uri):
        reader = CopcReader(for_laspy(stream), close_fd=False)
        describe_points(reader.header.point_format, read_extra_bytes(stream))
        batch: list[Entry] = []
        for entry in sorted(_nodes(header.uri, stream, reader, window), key=lambda entry: entry.offset):
            if batch and sum(e.point_count for e in batch) + entry.point_count > CHUNK_POINTS:
                yield from _decode(stream, reader, batch, header)
                batch = []
            batch.append(entry)
        if batch:
            yield from _decode(stream, reader, batch, header)


def _nodes(uri: str, stream: pa.NativeFile, reader: CopcReader, window: Bounds) -> list[Entry]:
    """The nodes with points that meet a window; pages of the table that hold no such node are not read."""
    info = reader.copc_info
    root_bounds = Bounds(info.center - info.halfsize, info.center + info.halfsize)
    entries = dict(reader.root_page.entries)
    root = VoxelKey()
    root.level = 0
    pending, pages, nodes = [root], set(), []
    while pending:
        key = pending.pop()
        entry = entries.get(key)
        if entry is None or not key.bounds(root_bounds).overlaps(window):
            continue
        if entry.byte_size < 0 or entry.offset + entry.byte_size > stream.size() or entry.point_count < -1:
            raise unreadable(
                uri, f"its octree names {entry.byte_size} bytes at {entry.offset}, outside of the file"
            )
        if entry.point_count == -1:
            if entry.offset in pages:
                raise unreadable(uri, "the pages of its octree refer to each other in a circle")
            pages.add(entry.offset)
            stream.seek(entry.offset)
            entries.update(HierarchyPage.from_bytes(stream.read(entry.byte_size)).entries)
            pending.append(key)
            continue
        if entry.point_count:
            nodes.append(entry)
        pending.extend(key.childs())
    promised = sum(entry.point_count for entry in nodes)
    if promised > reader.header.point_count:
        raise unreadable(
            uri, f"its octree promises {promised} points, its header {reader.header.point_count}"
        )
    return nodes


def _decode(
    stream: pa.NativeFile, reader: CopcReader, entries: list[Entry], header: ScanHeader
) -> Iterator[Columns]:
    content = bytearray()
    for entry in entries:
        stream.seek(entry.offset)
        content += stream.read(entry.byte_size)
    layout = reader.header.point_format
    points = np.zeros(sum(entry.point_count for entry in entries) * layout.size, np.uint8)
    table = [(entry.point_count, entry.byte_size) for entry in entries]
    selection = DecompressionSelection.all().to_lazrs()
    lazrs.decompress_points_with_chunk_table(content, reader.laszip_vlr.record_data, points, table, selection)
    packed = PackedPointRecord.from_buffer(points, layout)
    for start in range(0, len(packed), CHUNK_POINTS):
        chunk = packed.array[start : start + CHUNK_POINTS]
        yield las.columns_of(
            ScaleAwarePointRecord(chunk, layout, reader.header.scales, reader.header.offsets), header
        )

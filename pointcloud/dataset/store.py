"""The blocks dataset: one Parquet shard per scan, one row per block, and a manifest, which is written last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, NonNegativeInt, TypeAdapter, ValidationError
from pyproj import CRS

from pointcloud.blocks.block import Block
from pointcloud.blocks.features import FeatureStatistics
from pointcloud.dataset.filling import fill
from pointcloud.errors import SchemaError, first_line
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import LabelScheme
from pointcloud.storage import files, geoparquet

SCHEMA_VERSION = 4
MANIFEST = "manifest.json"
ROW_GROUP_BLOCKS = 64
"""Blocks of a row group at most: some 4 MB, read at once."""
_READ_BLOCKS = 16
_AXES = ("x", "y", "z")
_NUMPY = {
    "intensity": np.uint16, "return_number": np.uint8, "number_of_returns": np.uint8,
    "red": np.uint16, "green": np.uint16, "blue": np.uint16,
}  # fmt: skip

_POINTS = [
    *((axis, np.float32, "metres from the origin") for axis in _AXES),
    ("height", np.float32, "metres above the lowest point nearby"),
    *((name, dtype, "as in LAS; null where the scan has none") for name, dtype in _NUMPY.items()),
    (
        "label",
        np.int8,
        "class index, -1 ignored, below: a set of the scheme's; null where the scan has no labels",
    ),
    ("point_index", np.int64, "place of the point in its scan"),
    ("source", np.uint16, "its scan, as place in scans; null where all points are of scan"),
]
_SCALARS = [
    ("scan", pa.string(), "name of the scan"),
    ("scans", pa.list_(pa.string()), "of a tile or halo that crosses borders: the scans it has points from"),
    ("split", pa.string(), "train, val, test or unused"),
    ("tile", pa.list_(pa.int64(), 2), "i, j on the grid of the CRS"),
    ("shift", pa.list_(pa.int32(), 2), "which of the overlapping grids"),
    ("cell", pa.list_(pa.float64(), 4), "core's x_min, y_min, x_max, y_max in CRS units, half-open"),
    ("origin", pa.list_(pa.float64(), 3), "CRS units"),
    ("scan_extent", pa.list_(pa.float64(), 6), "scan's two corners (x, y, z), metres from the origin"),
    ("num_points", pa.int32(), "core and halo"),
    ("num_core", pa.int32(), "points of the tile itself, before those of the halo"),
    ("class_counts", pa.list_(pa.int32()), "labelled core points by class"),
    ("footprint", pa.binary(), "the cell as WKB polygon"),
]
BLOCK_SCHEMA = pa.schema(
    [pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in _SCALARS]
    + [
        # No entry of a list is null, which saves a pass over all points.
        pa.field(
            name,
            pa.list_(pa.field("element", pa.from_numpy_dtype(dtype), nullable=False)),
            metadata={"doc": doc},
        )
        for name, dtype, doc in _POINTS
    ]
)
"""One row is one block; every list column of a row has num_points entries."""


def _below_the_dataset(path: str) -> str:
    # A manifest from another source must not lead out of its folder.
    if not files.is_below(path):
        raise ValueError("expected a path below the dataset")
    return path


@dataclass(frozen=True)
class Shard:
    """One scan's blocks file: its path below the dataset, its scan, and how many blocks each split has."""

    path: Annotated[str, AfterValidator(_below_the_dataset)]
    scan: str
    num_blocks: dict[str, NonNegativeInt]


@dataclass(frozen=True)
class Manifest:
    """What a blocks dataset is. Written last, so a dataset without it does not exist.

    Attributes:
        block_config: the sizes of the blocks.
        label_scheme: the classes.
        split_rule: how the ground was divided into training, validation and test.
        shards: the files, one for each scan.
        statistics: mean and standard deviation of the standardised channels over the training split.
        class_counts: split -> labelled core points by class.
        attributes: the attributes that the blocks give.
        filled: attribute that some scans lack -> value that their blocks give instead (`pointcloud.dataset.filling`).
        quarantined: scan -> why it is not in the dataset.
    """

    block_config: BlockConfig
    label_scheme: LabelScheme
    split_rule: dict[str, Any]
    shards: tuple[Shard, ...]
    statistics: FeatureStatistics
    class_counts: dict[str, list[int]]
    attributes: tuple[str, ...]
    quarantined: dict[str, str]
    filled: dict[str, int] = field(default_factory=dict)

    def num_blocks(self, split: str) -> int:
        """How many blocks a split has, over all shards."""
        return sum(shard.num_blocks.get(split, 0) for shard in self.shards)


_KINDS: dict[str, TypeAdapter[Any]] = {
    "split_rule": TypeAdapter(dict[str, Any]),
    "shards": TypeAdapter(tuple[Shard, ...]),
    "class_counts": TypeAdapter(dict[str, list[NonNegativeInt]]),
    "attributes": TypeAdapter(tuple[str, ...]),
    "quarantined": TypeAdapter(dict[str, str]),
    "filled": TypeAdapter(dict[str, int]),
}


class ShardWriter:
    """Writes one scan's blocks, some at a time, as GeoParquet 1.1 (WKB footprints, PROJJSON).

    Used with `with`; the file appears under its name when the `with` body ends without an error. Equal blocks written
    in equal portions give equal bytes.
    """

    def __init__(self, uri: str, num_classes: int, crs: CRS | None) -> None:
        self._num_classes = num_classes
        self._schema = BLOCK_SCHEMA.with_metadata(
            geoparquet.metadata("footprint", crs) | {"pointloom.schema_version": str(SCHEMA_VERSION)}
        )
        self._uri = uri
        self._stack = ExitStack()

    def __enter__(self) -> ShardWriter:
        local_path = self._stack.enter_context(files.staged(self._uri))
        try:
            self._writer = self._stack.enter_context(
                pq.ParquetWriter(
                    local_path,
                    self._schema,
                    compression="zstd",
                    use_dictionary=["scan", "split"],
                    # Points have no use for smallest and largest values by page: these are counted block by block.
                    write_statistics=[name for name, *_ in _SCALARS],
                    # Numbers byte by byte: all high bytes together compress well, and faster than a dictionary.
                    column_encoding={f"{name}.list.element": "BYTE_STREAM_SPLIT" for name, *_ in _POINTS},
                    # A whole column of a row group at once: the default of 1,000 values takes a tenth longer.
                    write_batch_size=1 << 20,
                )
            )
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._stack.__exit__(*error)

    def write(self, blocks: Sequence[Block], splits: Sequence[str]) -> None:
        """Blocks and the split of each."""
        for start in range(0, len(blocks), ROW_GROUP_BLOCKS):
            some = slice(start, start + ROW_GROUP_BLOCKS)
            self._writer.write_table(_table(blocks[some], splits[some], self._num_classes, self._schema))


def _table(blocks: Sequence[Block], splits: Sequence[str], num_classes: int, schema: pa.Schema) -> pa.Table:
    rows = [_scalars(block, split, num_classes) for block, split in zip(blocks, splits, strict=True)]
    columns = [pa.array([row[name] for row in rows], schema.field(name).type) for name, _, _ in _SCALARS]
    for name, dtype, _ in _POINTS:
        columns.append(
            _lists([_values(block, name) for block in blocks], np.dtype(dtype), schema.field(name).type)
        )
    return pa.Table.from_arrays(columns, schema=schema)


def _lists(values: Sequence[np.ndarray | None], dtype: np.dtype, kind: pa.ListType) -> pa.ListArray:
    """A list of each row's values, null where a row has none; the values themselves are copied once."""
    ends = np.cumsum([0, *(0 if v is None else len(v) for v in values)], dtype=np.int32)
    offsets = pa.array(ends, mask=np.array([*(v is None for v in values), False]))
    present = [v.astype(dtype, copy=False) for v in values if v is not None]
    flat = pa.array(np.concatenate(present) if present else np.empty(0, dtype))
    return pa.ListArray.from_arrays(offsets, flat, type=kind)


def _values(block: Block, name: str) -> np.ndarray | None:
    if name in _AXES:
        return block.position[:, _AXES.index(name)]
    if name in _NUMPY:
        return block.attributes.get(name)
    return getattr(block, name)


def _scalars(block: Block, split: str, num_classes: int) -> dict[str, Any]:
    num_core = int(np.count_nonzero(block.is_core))
    if not block.is_core[:num_core].all():
        raise SchemaError(
            f"block {block.tile} of scan {block.scan!r} has points of its halo before those of its core."
        )
    class_counts = np.zeros(num_classes, np.int64)
    class_counts[: len(block.core_counts)] = block.core_counts
    return {
        "scan": block.scan,
        "scans": list(block.scans) if block.source is not None else None,
        "split": split,
        "tile": block.tile,
        "shift": block.shift,
        "cell": block.cell,
        "origin": block.origin,
        "scan_extent": None if block.extent is None else block.extent.ravel(),
        "num_points": len(block),
        "num_core": num_core,
        "class_counts": class_counts,
        "footprint": geoparquet.rectangle(block.cell),
    }


def read_blocks(dataset: str, manifest: Manifest, split: str | None = None) -> Iterator[Block]:
    """The blocks of one split, or all, shard after shard, with every attribute of the manifest.

    Raises:
        SchemaError: a shard of another schema version, or a damaged one.
        StorageError: a shard that the manifest names is missing.
    """
    for shard in manifest.shards:
        if not (any(shard.num_blocks.values()) if split is None else shard.num_blocks.get(split)):
            continue
        uri = files.join(dataset, shard.path)
        for batch in _batches(uri):
            for row in range(len(batch)):
                if split in (None, batch.column("split")[row].as_py()):
                    yield fill(_block(batch, row), manifest.filled)


def _batches(uri: str) -> Iterator[pa.RecordBatch]:
    with files.open_input(uri) as stream:
        try:
            file = pq.ParquetFile(stream)
            _check_version(uri, (file.schema_arrow.metadata or {}).get(b"pointloom.schema_version"))
            yield from file.iter_batches(batch_size=_READ_BLOCKS)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last for names of columns
            reason = first_line(error)
            raise SchemaError(f"{uri!r} is damaged ({reason}); run the preprocess flow again.") from error


def _block(batch: pa.RecordBatch, row: int) -> Block:
    def points(name: str) -> np.ndarray | None:
        value = batch.column(name)[row]
        return value.values.to_numpy(zero_copy_only=False) if value.is_valid else None

    def scalar(name: str) -> Any:
        return batch.column(name)[row].as_py()

    extent = scalar("scan_extent")
    attributes = {name: values for name in _NUMPY if (values := points(name)) is not None}
    return Block(
        scan=scalar("scan"),
        tile=tuple(scalar("tile")),
        shift=tuple(scalar("shift")),
        cell=tuple(scalar("cell")),
        origin=np.array(scalar("origin")),
        position=np.stack([points(axis) for axis in "xyz"], axis=1),  # type: ignore[misc]
        height=points("height"),  # type: ignore[arg-type]
        attributes=attributes,
        label=points("label"),
        is_core=np.arange(scalar("num_points")) < scalar("num_core"),
        point_index=points("point_index"),  # type: ignore[arg-type]
        extent=None if extent is None else np.array(extent).reshape(2, 3),
        scans=tuple(scalar("scans") or ()),
        source=points("source"),
    )


def write_manifest(dataset: str, manifest: Manifest) -> None:
    """Write the manifest, the last file of a blocks dataset."""
    files.write_json(
        files.join(dataset, MANIFEST),
        {
            "schema_version": SCHEMA_VERSION,
            "block_config": manifest.block_config.to_dict(),
            "label_scheme": manifest.label_scheme.to_dict(),
            "split_rule": manifest.split_rule,
            "shards": [vars(shard) for shard in manifest.shards],
            "statistics": manifest.statistics.to_dict(),
            "class_counts": manifest.class_counts,
            "attributes": manifest.attributes,
            "quarantined": manifest.quarantined,
            "filled": manifest.filled,
        },
    )


def read_manifest(dataset: str) -> Manifest:
    """The manifest of a dataset.

    Raises:
        StorageError: no manifest there, so no dataset.
        SchemaError: a manifest of another schema version, or with a field missing.
    """
    uri = files.join(dataset, MANIFEST)
    if not files.exists(uri):
        raise SchemaError(f"no blocks dataset at {dataset!r} (no {MANIFEST}); run the preprocess flow first.")
    record = files.read_json(uri)
    if not isinstance(record, dict):
        raise SchemaError(f"{uri!r} is not a manifest; run the preprocess flow again.")
    _check_version(uri, record.get("schema_version"))
    try:
        return Manifest(
            block_config=BlockConfig.from_dict(record["block_config"]),
            label_scheme=LabelScheme.from_dict(record["label_scheme"]),
            statistics=FeatureStatistics.from_dict(record["statistics"]),
            **{name: kind.validate_python(record[name]) for name, kind in _KINDS.items()},
        )
    except KeyError as error:
        raise SchemaError(f"{uri!r} lacks {error}; run the preprocess flow again.") from error
    except ValidationError as error:
        what = error.errors()[0]
        raise SchemaError(
            f"{uri!r} holds {what['input']!r:.60} where it should not ({what['msg']}); run the preprocess flow again."
        ) from error


def _check_version(uri: str, found: Any) -> None:
    version = found.decode() if isinstance(found, bytes) else found
    if str(version) != str(SCHEMA_VERSION):
        raise SchemaError(
            f"{uri!r} has schema version {version}, this Pointloom reads {SCHEMA_VERSION}; run the "
            "preprocess flow again."
        )

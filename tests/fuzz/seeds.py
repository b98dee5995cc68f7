"""Small sound inputs, one for each thing that Pointloom reads, which the fuzzer then damages."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import laspy
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pointcloud.labels import PRESETS
from pointcloud.storage import ledger
from tests.support.broken_files import good
from tests.support.clouds import make_cloud
from tests.support.datasets import write_dataset
from tests.support.scan_files import ply_bytes, write_copc, write_e57

NUM_POINTS = 200
PRETRAINED = Path(__file__).parents[2] / "pretrained" / "airborne"

Seed = Callable[[Path], Path]
"""Writes a sound input below a folder; the path that a reader is given."""


def las(folder: Path) -> Path:
    """LAS 1.4 with a WKT, an extra dimension and an extended record."""
    record = laspy.LasHeader(version="1.4", point_format=7)
    record.add_extra_dim(laspy.ExtraBytesParams("height", "float32", "above ground"))
    scan = laspy.LasData(record)
    cloud = make_cloud(NUM_POINTS)
    scan.x, scan.y, scan.z = cloud.xyz.T
    scan.evlrs = laspy.vlrs.vlrlist.VLRList([laspy.VLR("a_user", 7, "an extended record", b"content" * 5)])
    scan.write(folder / "a.las")
    return folder / "a.las"


def laz(folder: Path) -> Path:
    """A compressed file."""
    return _bytes(folder / "a.laz", good(".laz", NUM_POINTS))


def copc(folder: Path) -> Path:
    """An octree of two levels."""
    cloud = make_cloud(NUM_POINTS)
    return write_copc(folder / "a.copc.laz", cloud)


def ply(folder: Path) -> Path:
    """Binary, with colours and faces."""
    return _bytes(folder / "a.ply", ply_bytes(_rows(), faces=3))


def ply_ascii(folder: Path) -> Path:
    """The same as text."""
    return _bytes(folder / "a.ply", ply_bytes(_rows(), "ascii"))


def npz(folder: Path) -> Path:
    """Coordinates, intensity and classes in a compressed archive."""
    cloud = make_cloud(NUM_POINTS)
    np.savez_compressed(folder / "a.npz", xyz=cloud.xyz, **cloud.attributes)
    return folder / "a.npz"


def npz_bomb(folder: Path) -> Path:
    """An archive of a few kilobytes that promises two thousand million points."""
    stream = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (2_000_000_000, 3)}
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xyz.npy", stream.getvalue() + bytes(4 << 20))
        archive.writestr("../outside.npy", stream.getvalue())
    return folder / "a.npz"


def laz_bomb(folder: Path) -> Path:
    """A compressed file of a few kilobytes that promises four thousand million points in one chunk."""
    content = bytearray(good(".laz", NUM_POINTS))
    struct.pack_into("<I", content, content.index(b"laszip encoded") - 2 + 54 + 12, 2**32 - 1)
    struct.pack_into("<I", content, 107, 2**32 - 2)
    if content[25] >= 4:
        struct.pack_into("<Q", content, 247, 2**32 - 2)
    return _bytes(folder / "a.laz", bytes(content))


def npy(folder: Path) -> Path:
    """Coordinates alone."""
    np.save(folder / "a.npy", make_cloud(NUM_POINTS).xyz)
    return folder / "a.npy"


def e57(folder: Path) -> Path:
    """Two scans."""
    points = make_cloud(NUM_POINTS).xyz
    pose = (np.array([1.0, 0, 0, 0]), np.zeros(3))
    return write_e57(folder / "a.e57", [(points, *pose), (points, *pose)])


def s3dis(folder: Path) -> Path:
    """A room of two objects."""
    room = folder / "Area_1" / "office_1"
    (room / "Annotations").mkdir(parents=True)
    rows = np.column_stack([np.random.default_rng(0).random((40, 3)), np.full((40, 3), 128.0)])
    for name in ("chair_1", "wall_1"):
        np.savetxt(room / "Annotations" / f"{name}.txt", rows, fmt="%.3f %.3f %.3f %d %d %d")
    np.savetxt(room / "office_1.txt", rows, fmt="%.3f %.3f %.3f %d %d %d")
    return room


def labelled_parquet(folder: Path) -> Path:
    """A labelled cloud as `segment --format parquet` leaves it."""
    cloud = make_cloud(NUM_POINTS)
    columns = dict(zip("xyz", cloud.xyz.T, strict=True)) | {
        "classification": cloud.attributes["classification"],
        "confidence": np.full(NUM_POINTS, 0.5, np.float32),
    }
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder / "a.parquet"


def dataset(folder: Path) -> Path:
    """A blocks dataset: a manifest and a shard."""
    write_dataset(folder / "blocks")
    return folder / "blocks"


def records(folder: Path) -> Path:
    """The ledger of a run over two scans."""
    for scan in ("a.laz", "b.laz"):
        ledger.write(
            str(folder / "out"),
            ledger.Record(stage="segment", scan=scan, key=f"key of {scan}", state=ledger.DONE),
        )
    return folder / "out"


def checkpoint(folder: Path) -> Path:
    """The ready-made network."""
    shutil.copytree(PRETRAINED, folder / "checkpoint")
    return folder / "checkpoint"


def parameters(folder: Path) -> Path:
    """Parameters of `preprocess` as JSON."""
    values = {"scans": ["a.laz"], "out": "blocks", "voxel_size_m": 0.5, "tile_size_m": 16, "thin": True}
    return _bytes(folder / "parameters.json", json.dumps(values).encode())


def label_scheme(folder: Path) -> Path:
    """A user's mapping of codes to classes."""
    return _bytes(folder / "scheme.json", json.dumps(PRESETS["asprs-basic"].to_dict()).encode())


SEEDS: dict[str, Seed] = {
    seed.__name__: seed
    for seed in (
        las, laz, laz_bomb, copc, ply, ply_ascii, npz, npz_bomb, npy, s3dis, labelled_parquet, dataset, records,
        checkpoint, parameters, label_scheme,
    )
}  # fmt: skip
if find_spec("pye57"):
    SEEDS["e57"] = e57


def _bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _rows() -> np.ndarray:
    cloud = make_cloud(NUM_POINTS)
    rows = np.zeros(
        NUM_POINTS, [(name, "<f8") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")]
    )
    for name, column in zip("xyz", cloud.xyz.T, strict=True):
        rows[name] = column
    return rows

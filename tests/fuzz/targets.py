"""What reads each kind of input, watched: which files it opens, and whether it starts or reaches anything else."""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from flows.__main__ import parameters_from_file
from flows.preprocess import PreprocessParameters
from models.weights.checkpoint import read_checkpoint
from pointcloud.dataset.store import read_blocks, read_manifest
from pointcloud.delivery.read_back import iterate_classified
from pointcloud.errors import PointloomError
from pointcloud.formats.reader import find_scans, iterate_clouds, read_header
from pointcloud.labels import find_scheme
from pointcloud.storage import ledger

_ROOT = Path(__file__).parents[2]
# Where a Python program reads from in any case: its own code, its libraries and the kernel's files.
_SYSTEM = (
    "/proc/",
    "/sys/",
    "/dev/",
    "/usr/",
    "/lib",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
)
_PYTHON = {str(_ROOT), sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path} - {""}
_OWN = (*map(os.path.realpath, _PYTHON), *_SYSTEM)
_FORBIDDEN = (
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "socket.connect",
    "pickle.find_class",
)

_folder: str | None = None
_trespasses: list[str] = []
_watching = False


def read(target: str, path: str, folder: str) -> tuple[str, list[str]]:
    """Read an input of a kind, as the product does.

    Returns:
        What came of it, "read …" or the sentence of a `PointloomError`, and what it did that no reader may do.
    """
    global _folder, _watching
    if not _watching:
        import_module(
            "torch"
        )  # which starts a process when it is loaded; the checkpoint's reader loads it late
        sys.addaudithook(_audit)
        _watching = True
    tempfile.tempdir = folder
    _folder, _trespasses[:] = os.path.realpath(folder), []
    try:
        outcome = f"read {_READERS[target](path)}"
    except PointloomError as error:
        outcome = f"{type(error).__name__}: {error}"
    finally:
        _folder = None
    return outcome, list(_trespasses)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _folder is None:
        return
    if event in _FORBIDDEN and not _in_cache_of_numba():
        _trespasses.append(f"{event} {arguments!r:.200}")
    elif event == "open" and isinstance(arguments[0], str | bytes):
        path, mode = os.path.realpath(os.fsdecode(arguments[0])), arguments[1] or "r"
        writes = any(letter in str(mode) for letter in "wax+")
        if path.startswith(_folder) or (path.startswith(_OWN) and (not writes or "__pycache__" in path)):
            return
        _trespasses.append(f"open {path!r} {mode}")


def _in_cache_of_numba() -> bool:
    # Compiled kernels come from numba's own cache, which it pickles; no content of an input reaches it.
    frame = sys._getframe()
    while frame.f_back is not None:
        if frame.f_code.co_filename.endswith("numba/core/caching.py"):
            return True
        frame = frame.f_back
    return False


def _scan(path: str) -> str:
    (source,) = find_scans([path])
    if source.fault:
        raise PointloomError(source.fault)
    header = read_header(source.uri)
    num_points = 0
    for cloud in iterate_clouds(source.uri, report=lambda note: None):
        assert np.isfinite(cloud.xyz).all(), "coordinates that are not finite"
        num_points += len(cloud)
    assert num_points > 0, "no point and no word"
    return f"{num_points} points of {header.num_points}"


def _labelled(path: str) -> str:
    return f"{sum(len(cloud) for cloud in iterate_classified(path))} points"


def _dataset(path: str) -> str:
    return f"{sum(1 for _ in read_blocks(path, read_manifest(path)))} blocks"


def _records(path: str) -> str:
    return f"{len(ledger.read_all(path, 'segment'))} records"


def _checkpoint(path: str) -> str:
    return f"{len(read_checkpoint(path).state)} tensors"


def _parameters(path: str) -> str:
    (values,) = parameters_from_file(["preprocess", "--parameters", path])
    try:
        PreprocessParameters(
            **{name.replace("-", "_"): value for name, value in values.config["preprocess"].items()}
        )
    except ValidationError as error:
        raise PointloomError(f"{error.error_count()} parameters are refused.") from error
    return "parameters"


def _scheme(path: str) -> str:
    return f"{len(find_scheme(path))} classes"


_READERS = {
    **dict.fromkeys(
        ("las", "laz", "laz_bomb", "copc", "ply", "ply_ascii", "npz", "npz_bomb", "npy", "e57", "s3dis"),
        _scan,
    ),
    "labelled_parquet": _labelled,
    "dataset": _dataset,
    "records": _records,
    "checkpoint": _checkpoint,
    "parameters": _parameters,
    "label_scheme": _scheme,
}

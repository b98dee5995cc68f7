"""Small seeded clouds and scans for tests, and the real files of shared/data where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import laspy
import numpy as np
import pytest
from pyproj import CRS

from pointcloud.blocks.block import Block
from pointcloud.blocks.tiles import iterate_blocks, thin
from pointcloud.cloud import Cloud
from pointcloud.delivery.read_back import iterate_classified, iterate_confidence
from pointcloud.grid.block_config import BlockConfig
from pointcloud.labels import PRESETS, LabelScheme

REAL = Path(__file__).parents[3] / "shared" / "data"
SCHEME = PRESETS["ground-vegetation-building"]
SMALL = BlockConfig(tile_size_m=8.0, halo_m=2.0, voxel_size_m=0.5, ground_window_m=12.0, max_points=4096)


def make_cloud(
    num_points: int = 400,
    seed: int = 0,
    corner: tuple[float, float, float] = (0.0, 0.0, 0.0),
    extent: tuple[float, float, float] = (20.0, 20.0, 6.0),
    crs: CRS | None = None,
    colours: bool = False,
    labelled: bool = True,
) -> Cloud:
    """Points drawn evenly in a box, with every attribute; classes 1, 2, 5 and 6 by height."""
    rng = np.random.default_rng(seed)
    unit = rng.random((num_points, 3))
    attributes: dict[str, np.ndarray] = {
        "intensity": rng.integers(0, 65536, num_points).astype(np.uint16),
        "return_number": rng.integers(1, 4, num_points).astype(np.uint8),
        "number_of_returns": rng.integers(3, 6, num_points).astype(np.uint8),
    }
    if colours:
        attributes |= {
            name: rng.integers(0, 65536, num_points).astype(np.uint16) for name in ("red", "green", "blue")
        }
    if labelled:
        attributes["classification"] = np.array([2, 5, 6, 1], np.uint8)[(unit[:, 2] * 4).astype(int)]
    return Cloud(unit * extent + corner, attributes, crs)


def cut(
    cloud: Cloud, config: BlockConfig = SMALL, scheme: LabelScheme | None = SCHEME, scan: str = "a.laz"
) -> list[Block]:
    """The blocks of a cloud."""
    return list(iterate_blocks(scan, cloud, thin(cloud, config), config, scheme))


def write_las(
    path: Path,
    num_points: int = 50,
    point_format: int = 6,
    version: str = "1.4",
    seed: int = 0,
    header: laspy.LasHeader | None = None,
    **dimensions: Any,
) -> Path:
    """A LAS or LAZ file (by suffix) with random values in its standard dimensions, then those given."""
    rng = np.random.default_rng(seed)
    if header is None:
        header = laspy.LasHeader(version=version, point_format=point_format)
        header.scales, header.offsets = np.full(3, 0.001), np.array([652000.0, 6862000.0, 0.0])
    las = laspy.LasData(header)
    las.X, las.Y, las.Z = rng.integers(0, 50_000, (3, num_points))
    las.intensity = rng.integers(0, 65536, num_points)
    las.return_number = rng.integers(1, 5, num_points)
    las.number_of_returns = np.full(num_points, 5)
    las.classification = rng.choice([1, 2, 5, 6], num_points)
    las.user_data = rng.integers(0, 256, num_points)
    las.point_source_id = rng.integers(0, 65536, num_points)
    las.synthetic = rng.integers(0, 2, num_points)
    names = set(header.point_format.dimension_names)
    for name in {"gps_time"} & names:
        las[name] = rng.random(num_points) * 1e5
    for name in {"red", "green", "blue", "nir"} & names:
        las[name] = rng.integers(0, 65536, num_points)
    for name, values in dimensions.items():
        las[name] = np.full(num_points, values) if np.ndim(values) == 0 else values
    las.write(str(path))
    return path


def read_labelled(uri: str) -> tuple[Cloud, np.ndarray | None]:
    """A labelled cloud as a whole, and the confidence of its points, (P,); None where it has none."""
    chunks, sure = list(iterate_classified(uri)), list(iterate_confidence(uri))
    attributes = {name: np.concatenate([c.attributes[name] for c in chunks]) for name in chunks[0].attributes}
    cloud = Cloud(np.concatenate([chunk.xyz for chunk in chunks]), attributes, chunks[0].crs)
    return cloud, np.concatenate(sure) if sure else None


def crop(path: Path, folder: Path, xs: list[float], ys: list[float]) -> list[Path]:
    """A LAS file cut along lines (CRS units) into files of their own, half-open; those without points left out."""
    las = laspy.read(path)
    folder.mkdir(parents=True, exist_ok=True)
    east, north = (
        np.searchsorted(xs, np.asarray(las.x), "right"),
        np.searchsorted(ys, np.asarray(las.y), "right"),
    )
    written = []
    for i in range(len(xs) + 1):
        for j in range(len(ys) + 1):
            inside = (east == i) & (north == j)
            if inside.any():
                part = laspy.LasData(las.header, las.points[inside])
                part.update_header()
                written.append(folder / f"{path.stem}_{i}_{j}{path.suffix}")
                part.write(str(written[-1]))
    return written


def real_files(pattern: str, max_bytes: int = 1 << 40, min_bytes: int = 0) -> list[Any]:
    """Test parameters: the files of shared/data that match, or a skipped one that says they are absent."""
    paths = [p for p in sorted(REAL.glob(pattern)) if min_bytes <= p.stat().st_size <= max_bytes]
    if not paths:
        return [pytest.param(REAL, marks=pytest.mark.skip(reason=f"{REAL} is not here"))]
    return [pytest.param(p, id=str(p.relative_to(REAL))) for p in paths]


def assert_one_sentence(error: pytest.ExceptionInfo[BaseException], named: str) -> None:
    """The message is one line that ends with a stop and names what is wrong."""
    message = str(error.value)
    assert named in message
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 600

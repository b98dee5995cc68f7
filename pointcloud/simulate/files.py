"""The simulated survey as LAS and LAZ files."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from datetime import date
from pathlib import Path

import laspy
import numpy as np
from laspy.vlrs.vlr import VLR

from pointcloud.errors import PointloomError, StorageError
from pointcloud.simulate.survey import SurveyConfig, simulate_chunks

SOFTWARE = "Pointloom simulated survey"
"""In every header, as system identifier and as generating software."""

# A date of its own would make the same survey another file every day.
_DATE = date(2025, 1, 1)


def tile_name(config: SurveyConfig, i: int, j: int, suffix: str = ".laz") -> str:
    """File name by the tile's south-west corner in whole metres, e.g. `simulated_652000_6862000.laz`."""
    east, north = (o + t * config.tile_size_m for o, t in zip(config.origin, (i, j), strict=True))
    return f"simulated_{int(np.floor(east))}_{int(np.floor(north))}{suffix}"


def write_survey(config: SurveyConfig, folder: Path, suffix: str = ".laz") -> list[Path]:
    """Write every tile as one file, see `write_tile`; returns their paths, row by row from the south-west."""
    return [
        write_tile(config, i, j, folder, suffix)
        for j in range(config.tiles[1])
        for i in range(config.tiles[0])
    ]


def write_tile(config: SurveyConfig, i: int, j: int, folder: Path, suffix: str = ".laz") -> Path:
    """Write one tile as LAS 1.4, point format 6, with the CRS as WKT and a VLR that says it is simulated.

    The same config writes the same bytes. The file appears under its name only when it is whole; memory does
    not grow with the tile.

    Raises:
        PointloomError: a suffix other than .las or .laz, or no such tile.
        StorageError: the folder cannot be made or written to.
    """
    if suffix not in (".las", ".laz"):
        raise PointloomError(
            f"simulated survey: suffix is {suffix!r}, expected '.las' or '.laz'; use one of them."
        )
    folder = Path(folder)
    path = folder / tile_name(config, i, j, suffix)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    header = _header(config, path.stem)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            partial.open("wb") as stream,
            laspy.open(
                stream, mode="w", header=header, do_compress=suffix == ".laz",
                laz_backend=laspy.LazBackend.Lazrs, closefd=False,
            ) as writer,
        ):  # fmt: skip
            for chunk in simulate_chunks(config, i, j):
                record = laspy.ScaleAwarePointRecord.zeros(len(chunk["X"]), header=header)
                for name, values in chunk.items():
                    record[name] = values
                writer.write_points(record)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(
            f"simulated survey: cannot write {path} ({error.strerror}); choose a folder that you can write to."
        ) from error
    finally:
        # Where the folder could not be made there is nothing to remove, and no second error to raise.
        with suppress(OSError):
            partial.unlink()
    return path


def _header(config: SurveyConfig, name: str) -> laspy.LasHeader:
    header = laspy.LasHeader(version="1.4", point_format=6)
    header.scales = np.full(3, config.scale)
    header.offsets = np.array(config.offsets)
    header.creation_date = _DATE
    header.system_identifier = SOFTWARE
    header.generating_software = SOFTWARE
    header.uuid = uuid.uuid5(uuid.NAMESPACE_OID, f"{config!r} {name}")
    header.global_encoding.gps_time_type = laspy.header.GpsTimeType.STANDARD
    header.add_crs(config.crs)
    text = f"SIMULATED DATA, not measured. {SOFTWARE}, seed {config.seed}, tile {name}."
    # LAS 1.4 R16, "Text area description": the one VLR meant for people.
    header.vlrs.append(VLR("LASF_Spec", 3, "Simulated data, not measured", text.encode("ascii") + b"\0"))
    return header

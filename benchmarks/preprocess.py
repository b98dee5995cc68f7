"""Preprocessing against plain decoding, two processes against one, and memory against the size of a scan.

    python -m benchmarks.preprocess [--millions 10 --large 100 --scans 8 …]

"Decode" is the least that any way to blocks has to do: laspy reads every chunk of the scan and pyarrow writes the
same columns of every point to Parquet once, with the same compression and encodings (the height a difference to the
lowest point of the scan). Blocks hold the points of halos again, some 40 to 60 % more with the defaults, and
writing them is on our side of the ratio. Both sides run in processes of their own on one core, in turn, after a
small scan that has their modules imported and their kernels loaded, as in a flow of many scans. Two processes are
compared with one over several scans through the flow's own isolated processes. Peak memory is that of the process
that decodes and cuts. The scans are simulated: one tile, laid side by side as often as needed. Prints a table and
ends with one JSON line.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import laspy
import numpy as np

from tasks.runtime.isolation import HEAP, isolated

TILE_M = 250.0
"""Edge of the simulated tile that scans are laid out of."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=float, default=10.0, help="points of the scan that is timed")
    parser.add_argument(
        "--large", type=float, default=100.0, help="points of the scan whose memory is compared"
    )
    parser.add_argument("--scans", type=int, default=8, help="scans for two processes against one")
    parser.add_argument(
        "--points-per-m2", type=float, default=16.0, help="pulses; returns are about 1.3 times that"
    )
    parser.add_argument(
        "--voxel-m",
        type=float,
        default=0.25,
        help="one point is kept per voxel; 0.25 is preprocessing's default",
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side; medians are shown")
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "SCAN"), help=argparse.SUPPRESS)
    return parser.parse_args()


def write_scan(tile: laspy.LasData, millions: float, path: Path) -> int:
    """A LAZ file of about so many million points: copies of a tile, side by side; the number of points."""
    num_copies = max(1, round(millions * 1e6 / len(tile.points)))
    side = int(np.ceil(np.sqrt(num_copies)))
    step = round(TILE_M / tile.header.scales[0])
    x, y = np.asarray(tile.X).copy(), np.asarray(tile.Y).copy()
    with laspy.open(path, mode="w", header=tile.header, do_compress=path.suffix == ".laz") as writer:
        for copy in range(num_copies):
            points = tile.points.copy()
            points.X, points.Y = x + copy % side * step, y + copy // side * step
            writer.write_points(points)
    return num_copies * len(tile.points)


def decode(scan: str, folder: Path, voxel_m: float) -> None:
    """laspy and pyarrow alone, the columns and their encodings those of the blocks dataset; voxels are no matter."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = ("intensity", "return_number", "number_of_returns", "classification")
    kinds = {"intensity": pa.uint16()}
    schema = pa.schema(
        [(name, pa.float32()) for name in (*"xyz", "height")]
        + [(name, kinds.get(name, pa.uint8())) for name in names]
        + [("point_index", pa.int64())]
    )
    pa.set_cpu_count(1)
    with (
        laspy.open(scan) as reader,
        pq.ParquetWriter(
            folder / "decoded.parquet", schema, compression="zstd", use_dictionary=False, write_statistics=False,
            column_encoding=dict.fromkeys((*"xyz", "height", *names, "point_index"), "BYTE_STREAM_SPLIT"),
        ) as writer,
    ):  # fmt: skip
        begin, origin = 0, reader.header.mins
        for chunk in reader.chunk_iterator(1_000_000):
            columns = [
                (np.asarray(chunk[axis]) - low).astype(np.float32)
                for axis, low in zip("xyz", origin, strict=True)
            ]
            columns.append(columns[2])
            columns += [np.asarray(chunk[name]) for name in names]
            columns.append(np.arange(begin, begin + len(chunk)))
            begin += len(chunk)
            writer.write_table(pa.Table.from_arrays([pa.array(column) for column in columns], schema=schema))


def preprocess(scan: str, folder: Path, voxel_m: float) -> None:
    """What the preprocess flow does with a scan, with its defaults but for the voxels."""
    from pointcloud.dataset.preprocessing import PreprocessConfig, cut_scan, read_scan
    from pointcloud.dataset.splits import SplitRule
    from pointcloud.grid.block_config import BlockConfig
    from pointcloud.labels import PRESETS
    from pointcloud.storage.inputs import Source

    cutting = PreprocessConfig(
        block_config=BlockConfig(voxel_size_m=voxel_m), scheme=PRESETS["asprs-basic"], rule=SplitRule()
    )
    decoded = read_scan(Source(scan, Path(scan).name), cutting, folder)
    cut_scan(decoded, [], cutting, str(folder / f"{Path(scan).name}.parquet"))
    decoded.path.unlink()


def measure(what: str, scan: str, voxel_m: float) -> dict[str, float]:
    """Seconds and peak memory of one side on one core, in a process that has done a small scan before."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    do = {"decode": decode, "preprocess": preprocess}[what]
    with tempfile.TemporaryDirectory(dir=Path(scan).parent) as folder:
        do(str(Path(scan).with_name("small.laz")), Path(folder), voxel_m)
        gc.freeze()  # as the flow's isolated processes do
        began = time.perf_counter()
        do(scan, Path(folder), voxel_m)
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_new_process(what: str, scan: Path, voxel_m: float) -> dict[str, Any]:
    """`measure` in a new Python, its memory nobody else's."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.preprocess", "--voxel-m", str(voxel_m), "--measure", what, str(scan)],
        env={**os.environ, **HEAP, "RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, text=True, check=True, timeout=3600,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def over_scans(scans: list[Path], num_processes: int, folder: Path, voxel_m: float) -> float:
    """Seconds for several scans in so many isolated processes, started and warm."""
    from concurrent.futures import ThreadPoolExecutor

    from benchmarks.preprocess import preprocess as once  # by a name that another process can import

    with (
        isolated(num_processes, 3000, 3600, threads=1) as processes,
        ThreadPoolExecutor(num_processes) as threads,
    ):
        list(
            threads.map(lambda scan: processes.call(once, str(scan), folder, voxel_m), scans[:num_processes])
        )
        began = time.perf_counter()
        list(threads.map(lambda scan: processes.call(once, str(scan), folder, voxel_m), scans))
        return time.perf_counter() - began


def main() -> None:
    options = arguments()
    if options.measure:
        what, scan = options.measure
        print(json.dumps(measure(what, scan, options.voxel_m)))
        return
    from pointcloud.simulate.files import write_survey
    from pointcloud.simulate.survey import SurveyConfig

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = SurveyConfig(tiles=(1, 1), tile_size_m=TILE_M, points_per_m2=options.points_per_m2)
        tile = laspy.read(write_survey(config, folder, ".las")[0])
        scan, large = folder / "scan.laz", folder / "large.laz"
        write_scan(tile, 0.0, folder / "small.laz")
        num_points = write_scan(tile, options.millions, scan)
        print(
            f"{num_points:,} simulated points, {len(tile.points) / TILE_M**2:.1f} per m², "
            f"{scan.stat().st_size >> 20} MB"
        )
        rounds = [
            {what: in_new_process(what, scan, options.voxel_m) for what in ("decode", "preprocess")}
            for _ in range(options.rounds)
        ]
        seconds = {what: median(r[what]["seconds"] for r in rounds) for what in ("decode", "preprocess")}
        ratio = seconds["decode"] / seconds["preprocess"]
        for what, taken in seconds.items():
            print(f"{what:12}{taken:8.1f} s{num_points / taken / 1e6:8.2f} M points/s on one core")
        copies = [folder / f"scan_{n}.laz" for n in range(options.scans)]
        write_scan(tile, options.millions / options.scans, copies[0])
        for copy in copies[1:]:
            copy.write_bytes(copies[0].read_bytes())
        times = [
            [over_scans(copies, n, folder, options.voxel_m) for n in (1, 2)] for _ in range(options.rounds)
        ]
        pair = median(one / two for one, two in times)
        print(f"{options.scans} scans: {pair:.2f} times as fast in two processes as in one")
        num_large = write_scan(tile, options.large, large)
        rss = {"small": median(r["preprocess"]["peak_rss_mb"] for r in rounds)}
        found = in_new_process("preprocess", large, options.voxel_m)
        rss["large"] = found["peak_rss_mb"]
        print(
            f"peak memory: {rss['small']:.0f} MB for {num_points / 1e6:.0f} million points, {rss['large']:.0f} MB for "
            f"{num_large / 1e6:.0f} million ({rss['large'] / rss['small']:.2f} times; {found['seconds']:.0f} s)"
        )
    print(
        json.dumps(
            {
                "decode_ratio": round(ratio, 3),
                "two_process_ratio": round(pair, 2),
                "rss_10m_mb": round(rss["small"]),
                "rss_100m_mb": round(rss["large"]),
            }
        )
    )


if __name__ == "__main__":
    main()

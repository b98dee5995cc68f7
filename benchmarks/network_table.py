"""DeepGCN against the papers' formula over block sizes and batch sizes: seconds and peak memory.

    python -m benchmarks.network_table --device cuda [--points 4096 16384 --blocks 1 2 4 8 16 …]

Every cell is a process of its own: warm-up, then medians of `--rounds` forward passes (evaluation) and
training steps (forward, cross-entropy, backward), and the most memory the device gave to tensors (on the CPU:
the process's peak). On a GPU ours is also measured without the fused kNN kernels ("ours, top-k"), which says
which `models.network.graph.FUSED_FROM` suits the GPU, and under bf16 autocast. What does not fit in
memory says so. Prints a table and one JSON line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.network import networks, seconds

VARIANTS = ("formula", "ours", "ours, top-k", "ours, bf16")


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the network over block and batch sizes.")
    parser.add_argument("--points", type=int, nargs="+", default=[4096, 16_384], help="points of a block")
    parser.add_argument("--blocks", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="blocks of a batch")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="medians of so many are shown")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda where there is a GPU")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """One cell, in this process: seconds and MB of a forward pass and of a training step."""
    import torch
    import torch.nn.functional as F

    from models.network import graph

    on_gpu = options.device.startswith("cuda")
    (options.points,), (num_blocks,) = options.points, options.blocks
    ours, formula, block = networks(options)
    # Blocks of one shape, no two alike.
    x = torch.cat([block + 0.01 * torch.randn_like(block) for _ in range(num_blocks)])
    labels = torch.randint(0, 13, (len(x),), device=x.device)
    network = formula if options.variant == "formula" else ours
    if options.variant == "ours, top-k":
        graph.FUSED_FROM = sys.maxsize
    half = torch.autocast(x.device.type, torch.bfloat16, enabled=options.variant == "ours, bf16")

    def logits() -> torch.Tensor:
        if network is formula:
            return formula(x.view(num_blocks, -1, x.shape[1]).mT).mT.flatten(0, 1)
        return ours(x, torch.arange(num_blocks + 1) * options.points)

    def forward(_: int) -> None:
        with torch.inference_mode(), half:
            logits()

    def step(_: int) -> None:
        network.zero_grad()
        with half:
            loss = F.cross_entropy(logits().float(), labels)
        loss.backward()

    def peak_mb() -> float:
        if on_gpu:
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    wait: Callable[[], None] = torch.cuda.synchronize if on_gpu else lambda: None
    taken: dict[str, Any] = {}
    for name, run in (("forward", forward), ("step", step)):
        network.train(name == "step")
        with contextlib.suppress(torch.OutOfMemoryError):
            seconds(run, 0, wait)
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            taken[name] = median(seconds(run, 0, wait) for _ in range(options.rounds))
            taken[f"{name}_mb"] = peak_mb()
    return taken


def in_new_process(options: argparse.Namespace, variant: str, points: int, blocks: int) -> dict[str, Any]:
    """`measure` of one cell in a new Python; {} when it ended without an answer, as the kernel ends a process."""
    command = [sys.executable, "-m", "benchmarks.network_table", "--variant", variant]
    for name in ("layers", "channels", "k", "threads", "rounds", "device"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--points", str(points), "--blocks", str(blocks)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {}


def shown(cell: dict[str, Any], formula: dict[str, Any], name: str) -> str:
    """Seconds, ratio to the formula and memory of one cell's forward pass or step."""
    if name not in cell:
        return f"{'does not fit':>30}"
    ratio = f"{formula[name] / cell[name]:5.1f}×" if name in formula else f"{'':6}"
    return f"{cell[name] * 1e3:11.1f}ms {ratio} {cell[f'{name}_mb']:8.0f}MB"


def main() -> None:
    options = arguments()
    if options.variant:
        print(json.dumps(measure(options)))
        return
    variants = VARIANTS if options.device.startswith("cuda") else VARIANTS[:2]
    print(
        f"{options.layers} layers of {options.channels} channels, k = {options.k}, float32 unless it says bf16, "
        f"{options.device}; load of the machine {os.getloadavg()[0]:.1f}"
    )
    print(f"{'points':>7}{'blocks':>7}  {'':12}{'forward':>30}{'training step':>30}")
    cells = []
    for points in options.points:
        for blocks in options.blocks:
            formula: dict[str, Any] = {}
            for variant in variants:
                cell = in_new_process(options, variant, points, blocks)
                formula = cell if variant == "formula" else formula
                columns = "".join(shown(cell, formula, name) for name in ("forward", "step"))
                print(f"{points:7}{blocks:7}  {variant:12}{columns}", flush=True)
                cells.append({"points": points, "blocks": blocks, "variant": variant, **cell})
    print(json.dumps(cells))


if __name__ == "__main__":
    main()

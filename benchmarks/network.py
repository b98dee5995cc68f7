"""DeepGCN against the papers' formula, side by side on this machine.

    python -m benchmarks.network [--points 4096 --layers 28 --rounds 5 …]

Every measurement runs in a process of its own. "Kept" is a process whose heap is kept between
calls, as in a service after its first calls: both networks take turns in it. "Fresh" is the first
full block of a new process, a small one having loaded the kernels. A training step is forward,
cross-entropy and backward; an optimizer's memory would be the same for both. Both get the same
threads, allocator and waiting policy; the peak memory of a training step is that of two steps in a process
with the allocator's settings of the train flow. Prints a table and one JSON line, and writes a picture to
benchmarks/out/network.html.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

PICTURE = Path(__file__).parent / "out" / "network.html"
KEEP_HEAP = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
"""glibc's settings for a heap that is never given back."""
SMALL_HEAP = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": str(2**25)}
"""Those of the train flow's Ray workers (tasks/runtime/cluster.py): large tensors go back when they are freed."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the network against the papers' formula.")
    parser.add_argument("--points", type=int, default=4096, help="points of the block")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each network; medians are shown")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda where there is a GPU")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def networks(options: argparse.Namespace) -> tuple[nn.Module, nn.Module, Tensor]:
    """Ours and the formula with the same weights, and a block: points on the faces of boxes, (P, 9)."""
    import torch

    from benchmarks.reference import ReferenceDeepGCN
    from models.network.configurations import DeepGCNConfig
    from models.network.deepgcn import DeepGCN

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    num = options.points
    box = torch.randint(0, 12, (num,))
    xyz = torch.rand(num, 3) * (torch.rand(12, 3) * 0.8 + 0.1)[box] + torch.rand(12, 3)[box]
    xyz.scatter_(1, torch.randint(0, 3, (num, 1)), torch.rand(12, 1)[box])
    x = torch.cat([xyz, torch.rand(num, 3), xyz / xyz.amax(dim=0)], dim=1)
    config = DeepGCNConfig(
        num_layers=options.layers, channels=options.channels, k=options.k, stochastic_epsilon=0.0
    )
    ours, formula = DeepGCN(config), ReferenceDeepGCN(config)
    norms = [module for module in ours.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    # Statistics of this very block, so that evaluation sees features such as a trained network's.
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        ours(x[: max(num // 4, 2)], torch.tensor([0, max(num // 4, 2)]))
    for norm in norms:
        norm.momentum = 0.1
    formula.load_state_dict(ours.state_dict())
    return ours.to(options.device), formula.to(options.device), x.to(options.device)


def calls(
    options: argparse.Namespace, training: bool
) -> tuple[dict[str, Callable[[int], None]], Callable[[], None]]:
    """A forward pass or training step of each network on the first n points; what waits for the device."""
    import torch
    import torch.nn.functional as F

    ours, formula, x = networks(options)
    labels = torch.randint(0, 13, (len(x),), device=x.device)
    forwards: dict[str, tuple[nn.Module, Callable[[int], Tensor]]] = {
        "ours": (ours, lambda n: ours(x[:n], torch.tensor([0, n]))),
        "formula": (formula, lambda n: formula(x[:n].T[None])[0].T),
    }

    def step(network: nn.Module, forward: Callable[[int], Tensor]) -> Callable[[int], None]:
        network.train()

        def run(n: int) -> None:
            network.zero_grad()
            F.cross_entropy(forward(n), labels[:n]).backward()

        return run

    def evaluate(network: nn.Module, forward: Callable[[int], Tensor]) -> Callable[[int], None]:
        network.eval()

        def run(n: int) -> None:
            with torch.inference_mode():
                forward(n)

        return run

    wait = torch.cuda.synchronize if options.device.startswith("cuda") else lambda: None
    return {name: (step if training else evaluate)(*pair) for name, pair in forwards.items()}, wait


def seconds(run: Callable[[int], None], n: int, wait: Callable[[], None]) -> float:
    start = time.perf_counter()
    run(n)
    wait()
    return time.perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """What one process measures: "forward" or "training" of both in turn, or of one, as in "ours:forward"."""
    which, _, what = options.measure.rpartition(":")
    runs, wait = calls(options, training=what == "training")
    if which:  # the other network's weights would count as this one's memory
        runs = {which: runs[which]}
    small = max(2, min(512, options.points // 4))
    if not which:
        for run in runs.values():
            run(options.points)
        rounds = [
            {name: seconds(run, options.points, wait) for name, run in runs.items()}
            for _ in range(options.rounds)
        ]
        return {name: [r[name] for r in rounds] for name in runs}
    first_call = seconds(runs[which], small, wait)
    taken = [seconds(runs[which], options.points, wait) for _ in range(1 + (what == "training"))]
    return {
        "seconds": taken[0],
        "first_call": first_call,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_new_process(what: str, heap: dict[str, str] | None = None) -> dict[str, Any]:
    """`measure` in a new Python; this one has not imported torch, whose memory a child's peak would count."""
    environment = {**os.environ, **(heap or {})}
    command = [sys.executable, "-m", "benchmarks.network", *sys.argv[1:], "--measure", what]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    options = arguments()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    forward = in_new_process("forward", KEEP_HEAP)
    training = in_new_process("training")
    fresh = {
        name: [in_new_process(f"{name}:forward") for _ in range(min(3, options.rounds))]
        for name in ("formula", "ours")
    }
    peak = {name: in_new_process(f"{name}:training", SMALL_HEAP)["peak_rss_mb"] for name in fresh}
    rows = {
        "forward, heap kept": {name: median(forward[name]) for name in fresh},
        "forward, fresh process": {name: median(r["seconds"] for r in fresh[name]) for name in fresh},
        "training step": {name: median(training[name]) for name in fresh},
    }
    ratios = {label: row["formula"] / row["ours"] for label, row in rows.items()}
    print(
        f"{options.layers} layers of {options.channels} channels, k = {options.k}, a block of "
        f"{options.points} points, float32, {options.threads} threads, {options.device}; load of the machine "
        f"{os.getloadavg()[0]:.1f}"
    )
    print(f"{'':24}{'formula':>10}{'ours':>10}{'ratio':>8}")
    for label, row in rows.items():
        print(f"{label:24}{row['formula']:9.2f}s{row['ours']:9.2f}s{ratios[label]:7.1f}×")
    print(f"{'training, peak RSS':24}{peak['formula']:8.0f}MB{peak['ours']:8.0f}MB")
    print(f"{'first call of a process':24}{'':10}{median(r['first_call'] for r in fresh['ours']):9.2f}s")
    draw(rows, ratios)
    print(
        json.dumps(
            {
                "forward_ratio": round(ratios["forward, heap kept"], 2),
                "forward_ratio_fresh": round(ratios["forward, fresh process"], 2),
                "training_ratio": round(ratios["training step"], 2),
                "training_peak_rss_mb": round(peak["ours"]),
                "reference_peak_rss_mb": round(peak["formula"]),
            }
        )
    )


def draw(rows: dict[str, dict[str, float]], ratios: dict[str, float]) -> None:
    """Bars of seconds, the ratio above ours, as one self-contained page."""
    import plotly.graph_objects as go

    labels = list(rows)
    figure = go.Figure(
        [
            go.Bar(name="the papers' formula", x=labels, y=[rows[label]["formula"] for label in labels]),
            go.Bar(
                name="Pointloom",
                x=labels,
                y=[rows[label]["ours"] for label in labels],
                text=[f"{ratios[label]:.1f}× faster" for label in labels],
                textposition="outside",
            ),
        ]
    )
    figure.update_layout(template="plotly_white", yaxis_title="seconds", title="DeepGCN, seconds per block")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.write_html(PICTURE, include_plotlyjs=True)


if __name__ == "__main__":
    main()

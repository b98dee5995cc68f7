"""The GPU's kernels: what they find, in Triton's interpreter; that they compile for a GPU; on one, where it is.

The interpreter has to be asked for before Triton is imported, so its tests (interpreted_kernels_triton.py) run in
a Python of their own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from models.network import graph
from models.network.deepgcn import DeepGCN
from models.network.graph import neighbours, strided_ranks
from tests.models.conftest import settle, small_config
from tests.models.network.test_graph import distance_gap

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed (torch's CPU wheels lack it)"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@needs_triton
def test_what_they_find_in_the_interpreter() -> None:
    file = Path(__file__).parents[2] / "support" / "interpreted_kernels_triton.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3]
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


POINTERS = {
    "x": "*fp32", "tasks": "*i32", "plan": "*i32", "samples": "*i32", "limits": "*i64", "keys": "*i64",
    "counts": "*i32", "found": "*i32",
}  # fmt: skip


@needs_triton
@pytest.mark.parametrize("architecture", [80, 90])
def test_they_compile_without_tf32_and_fit_a_gpu(
    architecture: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an A100 and an H100, by the compiler that Triton brings; 99 KiB is what the smaller GPUs of today share."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton import compile as compile_kernel
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from models.kernels import knn_triton as kernels

    tile = {"BLOCK_C": 32, "ROWS": kernels.ROWS, "COLUMNS": kernels.COLUMNS}
    task = {"TASK_ROWS": kernels.ROWS}
    cases: list[tuple[Any, dict[str, int], int]] = [
        (kernels._sample, {**tile, "SAMPLES": 1024}, 8),
        (kernels._estimate_limits, {**task, "ROWS": kernels.LIMIT_ROWS, "SAMPLES": 1024}, 4),
        (kernels._keep, {**tile, "CAPACITY": 1024}, 8),
        (kernels._pick, {**task, "ROWS": 1, "LOG_CAPACITY": 10}, 2),
    ]
    for kernel, constants, warps in cases:
        names = kernel.arg_names
        signature = {n: "constexpr" if n in constants else POINTERS.get(n, "i32") for n in names}
        source = ASTSource(kernel, signature, {(names.index(n),): value for n, value in constants.items()})
        compiled = compile_kernel(
            source, GPUTarget("cuda", architecture, 32), {"num_warps": warps, "num_stages": 2}
        )
        assert compiled.metadata.shared <= 99 * 1024, kernel.__name__
        assert "tf32" not in compiled.asm["ptx"]


@needs_gpu
@needs_triton
@pytest.mark.parametrize("channels", [3, 64, 100])
@pytest.mark.parametrize("dilation", [1, 9, 27])
def test_on_a_gpu_they_find_what_the_torch_path_finds(channels: int, dilation: int) -> None:
    bounds = [0, 4096, 8192, 9000, 20_000]
    x = torch.randn((20_000, channels), generator=torch.Generator().manual_seed(1)).cuda()
    ranks = strided_ranks(16, dilation)
    block_ranks = ranks.expand(len(bounds) - 1, -1).contiguous()
    assert graph._uses_fused_kernels(x, bounds, block_ranks)
    fused, plain = neighbours(x, bounds, ranks, dilation), graph._search_torch(x, bounds, block_ranks)
    assert (fused != plain).float().mean() < 1e-3
    first = [0, 4096]
    assert distance_gap(x[:4096].cpu(), first, ranks, fused[:4096].cpu()) < 2e-6


@needs_gpu
def test_on_a_gpu_the_network_gives_and_learns_what_it_does_on_the_cpu() -> None:
    config = small_config(stochastic_epsilon=0.0, dropout=0.0)
    x = torch.rand((1200, 9), generator=torch.Generator().manual_seed(2))
    ptr, labels = torch.tensor([0, 500, 1200]), torch.arange(1200) % 13
    table = torch.stack(
        [neighbours(x[:, :3], ptr.tolist(), strided_ranks(6, d), d) for d in config.layer_dilations]
    )
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        network = settle(DeepGCN(config)).to(device).train()
        logits = network(x.to(device), ptr, graph=table.to(device))
        F.cross_entropy(logits, labels.to(device)).backward()
        results.append([logits.detach().cpu(), *(p.grad.cpu() for p in network.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@needs_gpu
def test_on_a_gpu_bf16_changes_the_logits_a_little() -> None:
    torch.manual_seed(0)
    network = settle(DeepGCN(small_config())).cuda().eval()
    x = torch.rand((1200, 9), generator=torch.Generator().manual_seed(3)).cuda()
    ptr = torch.tensor([0, 500, 1200])
    table = torch.stack([neighbours(x[:, :3], ptr.tolist(), strided_ranks(6, 1), 1)] * 5)
    with torch.inference_mode():
        exact = network(x, ptr, graph=table)
        with torch.autocast("cuda", torch.bfloat16):
            rough = network(x, ptr, graph=table).float()
            own_graph = network(x, ptr)
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()
    assert torch.isfinite(own_graph).all()

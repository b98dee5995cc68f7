"""When compiled kernels are used, and on how many threads.

The threads are a pool that sleeps, running kernels that let go of the GIL, instead of numba's own parallel
loops: these start OpenMP a second time, change torch's thread count, wait by spinning (8 ms a call while
another process uses the core) and take twice as long to compile.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

_CHUNKS_PER_THREAD = 4
"""More chunks than threads, so that a thread whose core somebody else takes does not hold up the rest."""


def has_compiled_kernels(x: Tensor) -> bool:
    """Whether x is for the compiled CPU kernels: it is on the CPU, in float32 or float64, and numba is installed."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) and _numba_is_installed()


@cache
def _numba_is_installed() -> bool:
    # The network alone, on a GPU, needs only torch: its kernels there are Triton's.
    if importlib.util.find_spec("numba") is None:
        logger.warning("numba is not installed: on the CPU the network is several times slower without it.")
        return False
    return True


def run_on_threads(kernel: Callable[..., None], num_items: int, *arguments: Any) -> None:
    """kernel(first, end, *arguments) over chunks of range(num_items), on `torch.get_num_threads()` threads.

    The kernel must write to different places for different items; then the result does not depend on the
    threads.
    """
    num_threads = min(torch.get_num_threads(), num_items)
    if num_threads == 1:
        kernel(0, num_items, *arguments)
        return
    num_chunks = min(num_threads * _CHUNKS_PER_THREAD, num_items)
    chunks = count()

    def work() -> None:
        while (chunk := next(chunks)) < num_chunks:
            kernel(chunk * num_items // num_chunks, (chunk + 1) * num_items // num_chunks, *arguments)

    others = [_pool().submit(work) for _ in range(num_threads - 1)]
    work()
    for other in others:
        other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads are started as they are needed; a forked process starts its own."""
    os.register_at_fork(after_in_child=_pool.cache_clear)
    return ThreadPoolExecutor(max_workers=os.cpu_count(), thread_name_prefix="pointloom-kernel")

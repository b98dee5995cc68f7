"""Loops that NumPy would pass over memory several times for, compiled by numba when they are first called."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

_log = logging.getLogger(__name__)


def compiled(function: Callable[..., Any], fastmath: bool = False) -> Callable[..., Any]:
    """A kernel for numba to compile; the code is kept beside the file or in the user's cache.

    In a container of which nothing can be written every process compiles for itself (some 5 s).
    """
    from numba import njit

    try:
        return njit(nogil=True, cache=True, error_model="numpy", fastmath=fastmath)(function)
    except RuntimeError:
        _log.info("No place to keep compiled kernels: set NUMBA_CACHE_DIR to a folder that can be written.")
        return njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)


def compiled_fast(function: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled`, with sums in whatever order is fastest; not for values that may be NaN or infinite."""
    return compiled(function, fastmath=True)

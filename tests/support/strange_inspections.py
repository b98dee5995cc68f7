"""Ways of looking at scans that go wrong over scans called bad; a small process can import them."""

from __future__ import annotations

import ctypes
import math
from dataclasses import replace
from typing import Any

import numpy as np

from pointcloud.quality.inspect import Inspection, inspect_scan


def fail(uri: str, *rest: Any) -> Inspection:
    if "bad" in uri:
        raise ZeroDivisionError("strange")
    return inspect_scan(uri, *rest)


def crash(uri: str, *rest: Any) -> Inspection:
    if "bad" in uri:
        ctypes.string_at(0)
    return inspect_scan(uri, *rest)


def devour(uri: str, *rest: Any) -> Inspection:
    if "bad" in uri:
        [np.empty(1 << 27) for _ in range(10)]
    return inspect_scan(uri, *rest)


def find_nan(uri: str, *rest: Any) -> Inspection:
    return replace(inspect_scan(uri, *rest), area_m2=math.nan, extent_m=(1.0, math.inf, 2.0))

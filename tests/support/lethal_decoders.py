"""Decoders that end their process over scans called bad; in a module of their own, which a small process can import."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import numpy as np

from pointcloud.blocks.decoded import DecodedScan
from pointcloud.delivery.deliver import decode_for_labels


def crash(scan: str, *rest: Any) -> DecodedScan:
    if "bad" in scan:
        ctypes.string_at(0)
    return decode_for_labels(scan, *rest)


def abort(scan: str, *rest: Any) -> DecodedScan:
    if "bad" in scan:
        os.abort()
    return decode_for_labels(scan, *rest)


def hang(scan: str, *rest: Any) -> DecodedScan:
    if "bad" in scan:
        time.sleep(600)
    return decode_for_labels(scan, *rest)


def devour(scan: str, *rest: Any) -> DecodedScan:
    if "bad" in scan:
        [np.empty(1 << 27) for _ in range(10)]
    return decode_for_labels(scan, *rest)

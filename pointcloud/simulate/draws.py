"""Random numbers that depend only on the seed and the object they are for, so that separate tiles fit together."""

from __future__ import annotations

import numpy as np

_STEP = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(values: np.ndarray) -> np.ndarray:
    """Scramble (…) uint64 into (…) uint64: the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014)."""
    mixed = values ^ (values >> np.uint64(30))
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def key(*numbers: int) -> np.ndarray:
    """One uint64 key, shape (1,), for a tuple of integers of any sign."""
    value = np.zeros(1, np.uint64)
    for number in numbers:
        value = mix(value + np.uint64((number * _STEP + 1) & _MASK))
    return value


def extend(keys: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Keys for every pair of `keys` and integer `index`, which broadcast against each other."""
    return mix(keys + index.astype(np.int64).view(np.uint64) * np.uint64(_STEP))


def uniform(keys: np.ndarray, channel: int) -> np.ndarray:
    """Uniform float64 in [0, 1) per key; every `channel` is an independent draw."""
    return (mix(keys ^ key(channel)) >> np.uint64(11)) * 2.0**-53


def uniform_pair(keys: np.ndarray, channel: int) -> tuple[np.ndarray, np.ndarray]:
    """Two coarse (32-bit) uniforms per key for the price of one."""
    mixed = mix(keys ^ key(channel))
    return (mixed >> np.uint64(32)) * 2.0**-32, (mixed & np.uint64(0xFFFFFFFF)) * 2.0**-32


def normal(keys: np.ndarray, channel: int) -> np.ndarray:
    """Near-normal float64 per key, mean 0, deviation 1, bounded at ±3.5.

    Four 16-bit pieces of one draw are summed (Irwin–Hall): sensor noise needs no tails, and this costs a
    fifth of a Box–Muller pair.
    """
    mixed = mix(keys ^ key(channel))
    low = np.uint64(0xFFFF)
    total = mixed & low
    for shift in (16, 32, 48):
        total += (mixed >> np.uint64(shift)) & low
    return (total.astype(np.float64) - 2 * 65535) * (np.sqrt(3.0) / 65536)


def generator(*numbers: int) -> np.random.Generator:
    """A generator for the objects of one place: seeded by integers of any sign."""
    return np.random.default_rng([number & 0xFFFFFFFF for number in numbers])

"""What surrounds a point: the shape of its neighbourhood, and how often the laser went through it."""

from __future__ import annotations

import math

import numpy as np

from pointcloud.compiling import compiled, compiled_fast

SHAPE = (
    "linearity", "planarity", "sphericity", "verticality", "roughness", "depth", "height_below", "height_above",
)  # fmt: skip
"""Channels of `shape`, in this order.

With λ₁ ≥ λ₂ ≥ λ₃ the eigenvalues of the covariance of the points in the sphere around a point, and n the eigenvector
of λ₃ (Weinmann, Jutzi and Mallet, "Semantic 3D scene interpretation", ISPRS Annals, 2014; Hackel, Wegner and
Schindler, "Fast semantic segmentation of 3D point clouds with strongly varying density", ISPRS Annals, 2016):

linearity (λ₁ − λ₂) / λ₁; planarity (λ₂ − λ₃) / λ₁; sphericity λ₃ / λ₁; verticality 1 − |n_z|; roughness
√(λ₃ / (λ₁ + λ₂ + λ₃)); depth, how far the point lies under the sphere's mean; height_below and height_above, down to
the lowest and up to the highest point of the upright cylinder around it. Heights are in radii; those of the cylinder
go through tanh, since a tower is taller than that.

None of them changes when the scan is turned about the vertical or mirrored, which augmentation does. The number of
points is left out: it says where flight lines overlap.
"""

ECHOES = ("several", "not_last")
"""Channels of `echoes`: which share of the points in the sphere had several returns, and which were not the last."""

_LEAST_POINTS = 3  # fewer span no plane


def shape(position: np.ndarray, radius_m: float) -> np.ndarray:
    """Shape of the surroundings of every point among all of them.

    Args:
        position: (N, 3) metres, z upwards.
        radius_m: of the sphere and the cylinder.

    Returns:
        (N, 8) float32, the channels of `SHAPE`. Of fewer than 3 points in a sphere the first five are 0.
    """
    return _shape(*_gather(position, np.zeros((2, len(position))), radius_m), radius_m)


def shape_and_echoes(
    position: np.ndarray, return_number: np.ndarray, number_of_returns: np.ndarray, radius_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """`shape`, and how often the laser went through the surroundings: foliage lets it through, a roof does not.

    Args:
        position: (N, 3) metres, z upwards.
        return_number, number_of_returns: (N,) as in the scan.
        radius_m: of the sphere and the cylinder.

    Returns:
        (N, 8) float32, the channels of `SHAPE`; (N, 2) float32 in [0, 1], the channels of `ECHOES`.
    """
    moments, around = _gather(position, echo_flags(return_number, number_of_returns), radius_m)
    return _shape(moments, around, radius_m), (moments[:, 10:] / moments[:, :1]).astype(np.float32)


def echo_flags(return_number: np.ndarray, number_of_returns: np.ndarray) -> np.ndarray:
    """(2, N) float64: 1 where a point's pulse had several returns, and where the point was not the last of them."""
    return np.stack([number_of_returns > 1, return_number < number_of_returns]).astype(np.float64)


def _shape(moments: np.ndarray, around: np.ndarray, radius_m: float) -> np.ndarray:
    channels = np.empty((len(moments), len(SHAPE)), np.float32)
    shapes(moments, radius_m, channels)
    channels[:, 6:] = np.tanh(around / radius_m)
    return channels


def _gather(position: np.ndarray, flags: np.ndarray, radius_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the sphere around every point, and the depth and height of its cylinder.

    Args:
        position: (N, 3) metres.
        flags: (2, N), summed as well.
        radius_m: of both.

    Returns:
        (N, 12): the sums of 1, x, y, z, xx, xy, xz, yy, yz, zz, counted from the point, and of the flags;
        (N, 2): metres down to the lowest and up to the highest point.
    """
    xyz = np.asarray(position, dtype=np.float64)
    moments, around = np.zeros((len(xyz), 12)), np.zeros((len(xyz), 2))
    if not len(xyz):
        return moments, around
    cell = np.floor((xyz[:, :2] - xyz[:, :2].min(axis=0)) / radius_m).astype(np.int64)
    width = int(cell[:, 1].max()) + 3  # an empty column on either side: neighbours never wrap around
    key = (cell[:, 0] + 1) * width + cell[:, 1] + 1
    order = np.argsort(key, kind="stable")
    key = key[order]
    cells, starts = np.unique(key, return_index=True)
    starts = np.append(starts, len(xyz))
    columns = np.ascontiguousarray(np.concatenate([xyz.T, flags])[:, order])
    _sum_around(columns, key, cells, starts, width, radius_m, order, moments, around)
    return moments, around


@compiled
def _sum_around(columns, key, cells, starts, width, radius, order, moments, around):  # type: ignore[no-untyped-def]
    """The loops of `_gather`.

    columns (5, N), x, y, z and the flags, and key (N,) lie in the order of the cells, order (N,) says where they were;
    cells (M,) are the keys there are, starts (M + 1,) their first rows.
    """
    limit = radius * radius
    xs, ys, zs, fs, gs = columns[0], columns[1], columns[2], columns[3], columns[4]
    for i in range(len(key)):
        x, y, z, out = xs[i], ys[i], zs[i], order[i]
        lowest = highest = z
        for row in range(-1, 2):
            # Three cells beside each other lie one after the other.
            middle = key[i] + row * width
            first = starts[np.searchsorted(cells, middle - 1)]
            last = starts[np.searchsorted(cells, middle + 2)]
            near = slice(first, last)
            sums = _sum_row(xs[near], ys[near], zs[near], fs[near], gs[near], x, y, z, limit)
            for m in range(12):
                moments[out, m] += sums[m]
            # In a loop of its own, since a minimum keeps the compiler from taking several points at once.
            for j in range(first, last):
                if zs[j] < lowest or zs[j] > highest:
                    dx, dy = xs[j] - x, ys[j] - y
                    if dx * dx + dy * dy <= limit:
                        lowest, highest = min(lowest, zs[j]), max(highest, zs[j])
        around[out, 0], around[out, 1] = z - lowest, highest - z


@compiled_fast
def _sum_row(xs, ys, zs, f, g, x, y, z, limit):  # type: ignore[no-untyped-def]
    """The twelve sums of `_gather` over these points, without a branch, so that several are added at once."""
    n = sx = sy = sz = sxx = sxy = sxz = syy = syz = szz = sf = sg = 0.0
    for j in range(len(xs)):
        dx, dy, dz = xs[j] - x, ys[j] - y, zs[j] - z
        within = 1.0 if dx * dx + dy * dy + dz * dz <= limit else 0.0
        wx, wy, wz = within * dx, within * dy, within * dz
        n += within
        sx += wx
        sy += wy
        sz += wz
        sxx += wx * dx
        sxy += wx * dy
        sxz += wx * dz
        syy += wy * dy
        syz += wy * dz
        szz += wz * dz
        sf += within * f[j]
        sg += within * g[j]
    return n, sx, sy, sz, sxx, sxy, sxz, syy, syz, szz, sf, sg


@compiled
def shapes(moments, radius, channels):  # type: ignore[no-untyped-def]
    """The first six channels of `SHAPE` from the sums of `_gather`.

    The eigenvalues are the roots of the characteristic polynomial (Smith, "Eigenvalues of a symmetric 3 × 3 matrix",
    Communications of the ACM, 1961): eight times as fast as LAPACK for so small a matrix.
    """
    for i in range(len(moments)):
        n = moments[i, 0]
        mx, my, mz = moments[i, 1] / n, moments[i, 2] / n, moments[i, 3] / n
        xx, xy, xz = moments[i, 4] / n - mx * mx, moments[i, 5] / n - mx * my, moments[i, 6] / n - mx * mz
        yy, yz, zz = moments[i, 7] / n - my * my, moments[i, 8] / n - my * mz, moments[i, 9] / n - mz * mz
        mean = (xx + yy + zz) / 3.0
        off = xy * xy + xz * xz + yz * yz
        p = math.sqrt(((xx - mean) ** 2 + (yy - mean) ** 2 + (zz - mean) ** 2 + 2.0 * off) / 6.0)
        low = middle = high = mean
        if p > 0.0:
            a, b, c = (xx - mean) / p, (yy - mean) / p, (zz - mean) / p
            d, e, f = xy / p, xz / p, yz / p
            half_det = (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)) / 2.0
            angle = math.acos(min(1.0, max(-1.0, half_det))) / 3.0
            high = mean + 2.0 * p * math.cos(angle)
            low = mean + 2.0 * p * math.cos(angle + 2.0 * math.pi / 3.0)
            middle = 3.0 * mean - high - low
        low, middle, high = max(low, 0.0), max(middle, 0.0), max(high, 0.0)
        channels[i, 5] = mz / radius
        for m in range(5):
            channels[i, m] = 0.0
        if n < _LEAST_POINTS or high <= 1e-12 * radius * radius:
            continue
        channels[i, 0] = (high - middle) / high
        channels[i, 1] = (middle - low) / high
        channels[i, 2] = low / high
        channels[i, 3] = 1.0 - _upright(xx, xy, xz, yy, yz, zz, low)
        channels[i, 4] = math.sqrt(low / (low + middle + high))


@compiled
def _upright(xx, xy, xz, yy, yz, zz, low):  # type: ignore[no-untyped-def]
    """|z| of the unit eigenvector of the smallest eigenvalue, which is at right angles to two rows of A − λ₃ I."""
    a, b, c = xx - low, yy - low, zz - low
    longest, upright = 0.0, 1.0
    for x, y, z in (
        (xy * yz - xz * b, xz * xy - a * yz, a * b - xy * xy),
        (xy * c - xz * yz, xz * xz - a * c, a * yz - xy * xz),
        (b * c - yz * yz, yz * xz - xy * c, xy * yz - b * xz),
    ):
        length = x * x + y * y + z * z
        if length > longest:
            longest, upright = length, abs(z) / math.sqrt(length)
    return upright

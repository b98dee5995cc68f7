"""What surrounds a point: the shape of its neighbourhood, and how often the laser went through it."""

from __future__ import annotations

import numpy as np

from pointcloud.compiling import compiled

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
    moments, around = _gather(position, np.zeros((len(position), 0)), radius_m)
    number = moments[:, 0]
    mean = moments[:, 1:4] / number[:, None]
    second = moments[:, [4, 5, 6, 5, 7, 8, 6, 8, 9]].reshape(-1, 3, 3) / number[:, None, None]
    values, vectors = np.linalg.eigh(second - mean[:, :, None] * mean[:, None, :])
    low, middle, high = values.clip(0.0).T
    spans = (number >= _LEAST_POINTS) & (high > 1e-12 * radius_m**2)
    high = np.where(spans, high, 1.0)
    shapes = [
        (high - middle) / high,
        (middle - low) / high,
        low / high,
        1.0 - np.abs(vectors[:, 2, 0]),
        np.sqrt(low / (low + middle + high)),
    ]
    heights = [mean[:, 2] / radius_m, *np.tanh(around / radius_m).T]
    return np.stack([*(np.where(spans, s, 0.0) for s in shapes), *heights], axis=1).astype(np.float32)


def echoes(
    position: np.ndarray, return_number: np.ndarray, number_of_returns: np.ndarray, radius_m: float
) -> np.ndarray:
    """How often the laser went through the surroundings of every point: foliage lets it, a roof does not.

    Args:
        position: (N, 3) metres.
        return_number, number_of_returns: (N,) as in the scan.
        radius_m: of the sphere.

    Returns:
        (N, 2) float32 in [0, 1], the channels of `ECHOES`.
    """
    found = np.stack([number_of_returns > 1, return_number < number_of_returns], axis=1).astype(np.float64)
    moments, _ = _gather(position, found, radius_m)
    return (moments[:, 10:] / moments[:, :1]).astype(np.float32)


def _gather(position: np.ndarray, values: np.ndarray, radius_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the sphere around every point, and the depth and height of its cylinder.

    Args:
        position: (N, 3) metres.
        values: (N, V), summed as well.
        radius_m: of both.

    Returns:
        (N, 10 + V): the sums of 1, x, y, z, xx, xy, xz, yy, yz, zz, counted from the point, and of the values;
        (N, 2): metres down to the lowest and up to the highest point.
    """
    xyz = np.ascontiguousarray(position, dtype=np.float64)
    moments, around = np.zeros((len(xyz), 10 + values.shape[1])), np.zeros((len(xyz), 2))
    if not len(xyz):
        return moments, around
    cell = np.floor((xyz[:, :2] - xyz[:, :2].min(axis=0)) / radius_m).astype(np.int64)
    width = int(cell[:, 1].max()) + 3  # an empty column on either side: neighbours never wrap around
    key = (cell[:, 0] + 1) * width + cell[:, 1] + 1
    order = np.argsort(key, kind="stable")
    key = key[order]
    cells, starts = np.unique(key, return_index=True)
    starts = np.append(starts, len(xyz))
    _sum_around(xyz[order], values[order], key, cells, starts, width, radius_m, order, moments, around)
    return moments, around


@compiled
def _sum_around(xyz, values, key, cells, starts, width, radius, order, moments, around):  # type: ignore[no-untyped-def]
    """The loops of `_gather`. xyz (N, 3), values (N, V) and key (N,) lie in the order of the cells, order (N,) says
    where they were; cells (M,) are the keys there are, starts (M + 1,) their first rows.
    """
    limit = radius * radius
    for i in range(len(xyz)):
        x, y, z, out = xyz[i, 0], xyz[i, 1], xyz[i, 2], order[i]
        lowest = highest = 0.0
        number = 0
        sx = sy = sz = sxx = sxy = sxz = syy = syz = szz = 0.0
        for row in range(-1, 2):
            # Three cells beside each other lie one after the other.
            middle = key[i] + row * width
            first = np.searchsorted(cells, middle - 1)
            last = np.searchsorted(cells, middle + 2)
            for j in range(starts[first], starts[last]):
                dx, dy = xyz[j, 0] - x, xyz[j, 1] - y
                flat = dx * dx + dy * dy
                if flat > limit:
                    continue
                dz = xyz[j, 2] - z
                lowest, highest = min(lowest, dz), max(highest, dz)
                if flat + dz * dz > limit:
                    continue
                number += 1
                sx += dx
                sy += dy
                sz += dz
                sxx += dx * dx
                sxy += dx * dy
                sxz += dx * dz
                syy += dy * dy
                syz += dy * dz
                szz += dz * dz
                for v in range(values.shape[1]):
                    moments[out, 10 + v] += values[j, v]
        moments[out, 0], moments[out, 1], moments[out, 2], moments[out, 3] = number, sx, sy, sz
        moments[out, 4], moments[out, 5], moments[out, 6] = sxx, sxy, sxz
        moments[out, 7], moments[out, 8], moments[out, 9] = syy, syz, szz
        around[out, 0], around[out, 1] = -lowest, highest

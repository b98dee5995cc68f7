"""Shape and echoes of a point's surroundings from sums over cells: a radius of 32 m costs less than one of 1 m.

For each radius the points are gathered in cubic cells, a share of the radius wide. Sums of coordinates and of their
products add up, so a sphere is the cells whose centroids lie in it, some twenty on a surface, however many points they
hold; larger radii have larger and so fewer cells. (Hackel, Wegner and Schindler, "Fast semantic segmentation of 3D
point clouds with strongly varying density", ISPRS Annals, 2016, and Thomas et al., "Semantic classification of 3D point
clouds with multiscale spherical neighborhoods", 3DV 2018, thin the cloud for each radius instead.)
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False
# mypy: check-untyped-defs=False
# numba finds the types of what it compiles; docstrings tell them.

from __future__ import annotations

import numpy as np

from pointcloud.blocks.surroundings import SHAPE, shapes
from pointcloud.compiling import compiled
from pointcloud.grid.voxels import group_by_cell

CELLS_PER_RADIUS = 2.5

_REACH = 3  # columns and cells that a sphere may reach from its own: centroids lie anywhere in their cells
_SUMS = 12  # of 1, x, y, z, xx, xy, xz, yy, yz, zz and the two flags


def surroundings_by_cells(
    position: np.ndarray, flags: np.ndarray | None, radius_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """What surrounds every point within a radius, from sums over cells.

    The sphere lies around the centroid of the point's cell and holds the cells whose centroids are in it; the cylinder
    around it holds the columns of cells whose middles are in it. Depth and heights count from the point itself.

    Args:
        position: (N, 3) metres, z upwards.
        flags: (2, N), whose means over the sphere are wanted; None: zeros.
        radius_m: of the sphere and the cylinder.

    Returns:
        (N, 8) float32, the channels of `pointcloud.blocks.surroundings.SHAPE`; (N, 2) float32, the means of the flags.
    """
    channels = np.empty((len(position), len(SHAPE)), np.float32)
    means = np.empty((len(position), 2), np.float32)
    if not len(position):
        return channels, means
    axes = np.ascontiguousarray(position.T, dtype=np.float64)
    edge = radius_m / CELLS_PER_RADIUS
    order, starts = group_by_cell(axes, (edge, edge))
    weights = np.zeros((2, len(order))) if flags is None else np.ascontiguousarray(flags, dtype=np.float64)
    sums, cell = np.zeros((len(starts), _SUMS)), np.empty((len(starts), 3), np.int64)
    spans = np.empty((len(starts), 2))
    _sum_cells(axes, weights, order, starts, edge, sums, cell, spans)
    columns = np.flatnonzero(np.r_[True, (np.diff(cell[:, :2], axis=0) != 0).any(axis=1)])
    of_sphere, around = np.empty_like(sums), np.empty((len(columns), 2))
    _sum_spheres(sums, cell, spans, np.append(columns, len(cell)), edge, radius_m, of_sphere, around)
    of_cell = np.empty((len(starts), len(SHAPE)), np.float32)
    shapes(of_sphere, radius_m, of_cell)
    column_of = np.repeat(np.arange(len(columns)), np.diff(columns, append=len(cell)))
    _to_points(axes[2], order, starts, sums, of_sphere, of_cell, around, column_of, radius_m, channels, means)
    return channels, means


@compiled
def _sum_cells(axes, flags, order, starts, edge, sums, cell, spans):
    """Sums (M, 12), place (M, 3), lowest and highest z (M, 2) of the points of each cell."""
    for m in range(len(starts)):
        last = starts[m + 1] if m + 1 < len(starts) else len(order)
        point = order[starts[m]]
        for axis in range(3):
            cell[m, axis] = int(np.floor(axes[axis, point] / edge))
        spans[m, 0] = spans[m, 1] = axes[2, point]
        for n in range(starts[m], last):
            point = order[n]
            x, y, z = axes[0, point], axes[1, point], axes[2, point]
            sums[m, 0] += 1.0
            sums[m, 1] += x
            sums[m, 2] += y
            sums[m, 3] += z
            sums[m, 4] += x * x
            sums[m, 5] += x * y
            sums[m, 6] += x * z
            sums[m, 7] += y * y
            sums[m, 8] += y * z
            sums[m, 9] += z * z
            sums[m, 10] += flags[0, point]
            sums[m, 11] += flags[1, point]
            spans[m, 0], spans[m, 1] = min(spans[m, 0], z), max(spans[m, 1], z)


@compiled
def _sum_spheres(sums, cell, spans, columns, edge, radius, of_sphere, around):
    """Sums (M, 12) over the sphere around each cell's centroid, counted from there; z range (C, 2) around each column.

    Cells are sorted by x, y, z; columns (C + 1,) says where those of each place begin.
    """
    num_columns, side = len(columns) - 1, 2 * _REACH + 1
    limit, widest = radius * radius, radius / edge
    beside = np.zeros(
        side, np.int64
    )  # in each row of columns, the first that may be near: from one to the next it only moves on
    near, at = np.empty(side * side, np.int64), np.empty(side * side, np.int64)
    for column in range(num_columns):
        x, y = cell[columns[column], 0], cell[columns[column], 1]
        num_near, low, high = 0, np.inf, -np.inf
        for row in range(side):
            wanted, c = x + row - _REACH, beside[row]
            while c < num_columns and (
                cell[columns[c], 0] < wanted
                or (cell[columns[c], 0] == wanted and cell[columns[c], 1] < y - _REACH)
            ):
                c += 1
            beside[row] = c
            while c < num_columns and cell[columns[c], 0] == wanted and cell[columns[c], 1] <= y + _REACH:
                near[num_near], at[num_near] = c, columns[c]
                num_near += 1
                dx, dy = wanted - x, cell[columns[c], 1] - y
                if dx * dx + dy * dy <= widest * widest:
                    for m in range(columns[c], columns[c + 1]):
                        low, high = min(low, spans[m, 0]), max(high, spans[m, 1])
                c += 1
        around[column, 0], around[column, 1] = low, high
        for m in range(columns[column], columns[column + 1]):
            n = sums[m, 0]
            x0, y0, z0, total = sums[m, 1] / n, sums[m, 2] / n, sums[m, 3] / n, of_sphere[m]
            total[:] = 0.0
            for other in range(num_near):
                last, i = columns[near[other] + 1], at[other]
                while i < last and cell[i, 2] < cell[m, 2] - _REACH:
                    i += 1
                at[other] = i
                while i < last and cell[i, 2] <= cell[m, 2] + _REACH:
                    of_other = sums[i]
                    dx, dy, dz = (
                        of_other[1] / of_other[0] - x0,
                        of_other[2] / of_other[0] - y0,
                        of_other[3] / of_other[0] - z0,
                    )
                    if dx * dx + dy * dy + dz * dz <= limit:
                        for k in range(12):
                            total[k] += of_other[k]
                    i += 1
            # Counted from the centroid: Σ (x − x₀)(y − y₀) = Σxy − x₀ Σy − y₀ Σx + n x₀ y₀.
            n, sx, sy, sz = total[0], total[1], total[2], total[3]
            total[4] += x0 * (n * x0 - 2.0 * sx)
            total[5] += n * x0 * y0 - x0 * sy - y0 * sx
            total[6] += n * x0 * z0 - x0 * sz - z0 * sx
            total[7] += y0 * (n * y0 - 2.0 * sy)
            total[8] += n * y0 * z0 - y0 * sz - z0 * sy
            total[9] += z0 * (n * z0 - 2.0 * sz)
            total[1] -= n * x0
            total[2] -= n * y0
            total[3] -= n * z0


@compiled
def _to_points(height, order, starts, sums, of_sphere, of_cell, around, column_of, radius, channels, means):
    """The channels of each point (N, 8) and the means of its flags (N, 2), from those of its cell."""
    for m in range(len(starts)):
        last = starts[m + 1] if m + 1 < len(starts) else len(order)
        mean = sums[m, 3] / sums[m, 0] + of_sphere[m, 3] / of_sphere[m, 0]
        low, high = around[column_of[m], 0], around[column_of[m], 1]
        first, second = of_sphere[m, 10] / of_sphere[m, 0], of_sphere[m, 11] / of_sphere[m, 0]
        for n in range(starts[m], last):
            point = order[n]
            z, of_point = height[point], channels[point]
            of_point[:5] = of_cell[m, :5]
            of_point[5] = (mean - z) / radius
            of_point[6] = np.tanh((z - low) / radius)
            of_point[7] = np.tanh((high - z) / radius)
            means[point, 0], means[point, 1] = first, second

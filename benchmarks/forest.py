"""The baseline, which many survey teams use: a random forest on the eigenvalue features of each point's surroundings.

Features of Weinmann, Jutzi and Mallet, "Semantic 3D scene interpretation" (ISPRS Annals, 2014), computed by
jakteristics in spheres of several radii around every point of the full cloud, and beside them the height above
the lowest point nearby, the intensity and the returns. The forest is scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pointcloud.cloud import Cloud
from pointcloud.crs import metres_per_unit
from pointcloud.errors import PointloomError
from pointcloud.grid.height import height_above, lowest_points
from pointcloud.labels import IGNORE, LabelScheme

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

RADII_PER_SPACING = (3.0, 6.0, 12.0, 24.0)
"""Radii of the spheres, in distances between points: about 9 points of a flat roof, to about 1800."""

GEOMETRIC = (
    "eigenvalue_sum", "omnivariance", "eigenentropy", "anisotropy", "planarity", "linearity", "PCA1", "PCA2",
    "surface_variation", "sphericity", "verticality", "nz", "number_of_neighbors",
)  # fmt: skip
"""All that jakteristics knows, but for what depends on north: horizontal parts of normals and eigenvectors."""

POINT_ATTRIBUTES = ("intensity", "return_number", "number_of_returns")

_DENSITY_NEIGHBOURS = 16
_LEAST_POINTS = 100


@dataclass(frozen=True)
class ForestConfig:
    """How a forest is grown; scikit-learn's defaults but for what is named here.

    Attributes:
        trees: their number.
        ground_window_m: heights count from the lowest point within about this window.
        threads: of the features and the forest.
        seed: of the draws.
    """

    trees: int = 100
    ground_window_m: float = 30.0
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trees < 1 or self.threads < 1 or not self.ground_window_m > 0:
            raise PointloomError("trees and threads must be 1 or more and ground_window_m positive.")


class Forest:
    """A random forest that learns from whole clouds and labels whole clouds.

    Attributes:
        radii_m: of the spheres, metres, from the density of the training clouds.
        attributes: those of `POINT_ATTRIBUTES` that every training cloud has.
    """

    def __init__(self, clouds: Sequence[Cloud], scheme: LabelScheme, config: ForestConfig) -> None:
        """Grow the forest on every point of the clouds that has a class of the scheme.

        Raises:
            PointloomError: no cloud has a labelled point, or a cloud is too small to tell its density.
        """
        self.config = config
        spacing = float(np.median([point_spacing_m(cloud) for cloud in clouds]))
        self.radii_m = tuple(spacing * factor for factor in RADII_PER_SPACING)
        self.attributes = tuple(a for a in POINT_ATTRIBUTES if all(a in c.attributes for c in clouds))
        labels = [class_indices(cloud, scheme) for cloud in clouds]
        if not any((label >= 0).any() for label in labels):
            raise PointloomError(
                f"no training point has a class of the label scheme {scheme.name!r} ({', '.join(scheme.names)}); use "
                "the scheme of the scans."
            )
        rows = [self.features(cloud)[label >= 0] for cloud, label in zip(clouds, labels, strict=True)]
        self._forest = _grow(np.concatenate(rows), np.concatenate([y[y >= 0] for y in labels]), config)

    def features(self, cloud: Cloud) -> np.ndarray:
        """(P, F) float32 features of every point of a cloud.

        A sphere with fewer than three points has no shape: its columns are NaN, which the trees take as a value of
        its own.

        Raises:
            PointloomError: the cloud lacks an attribute that the training clouds had.
        """
        missing = [name for name in self.attributes if name not in cloud.attributes]
        if missing:
            raise PointloomError(f"a test scan has no {', '.join(missing)}, which the training scans have.")
        compute_features = _jakteristics()
        horizontal, vertical = metres_per_unit(cloud.crs)
        # From a corner, so that the moments of large coordinates lose no digits.
        corner = cloud.xyz.min(axis=0)
        xyz = np.ascontiguousarray((cloud.xyz - corner) * np.array([horizontal, horizontal, vertical]))
        window = self.config.ground_window_m
        columns = [height_above(xyz, window, *lowest_points(xyz, window))[:, None]]
        columns += [cloud.attributes[name][:, None] for name in self.attributes]
        for radius in self.radii_m:
            columns.append(
                compute_features(
                    xyz,
                    search_radius=radius,
                    num_threads=self.config.threads,
                    feature_names=list(GEOMETRIC),
                )
            )
        return np.concatenate(columns, axis=1, dtype=np.float32)

    def label(self, cloud: Cloud) -> np.ndarray:
        """Class indices (P,) int64 of every point of a cloud. Errors: `features`."""
        return self._forest.predict(self.features(cloud)).astype(np.int64)


def class_indices(cloud: Cloud, scheme: LabelScheme) -> np.ndarray:
    """True class indices (P,) int8 of a cloud; `IGNORE` where it has none of the scheme."""
    if "classification" not in cloud.attributes:
        return np.full(len(cloud), IGNORE, np.int8)
    return scheme.to_indices(np.asarray(cloud.attributes["classification"]))


def point_spacing_m(cloud: Cloud) -> float:
    """Distance between points on the ground, metres: 1 / sqrt(density), the density where half the points have more.

    Raises:
        PointloomError: too few points to tell, or most of them at one place.
    """
    from scipy.spatial import cKDTree

    if len(cloud) < _LEAST_POINTS:
        raise PointloomError(
            f"a scan has {len(cloud)} points, expected {_LEAST_POINTS} or more; leave it out."
        )
    xy = np.ascontiguousarray(cloud.xyz[:, :2])
    reach = cKDTree(xy).query(xy, _DENSITY_NEIGHBOURS + 1)[0][:, -1]
    spacing = float(np.median(reach)) * np.sqrt(np.pi / _DENSITY_NEIGHBOURS) * metres_per_unit(cloud.crs)[0]
    if not spacing > 0:
        raise PointloomError("most points of a scan lie at one place; remove duplicates.")
    return spacing


def _grow(features: np.ndarray, labels: np.ndarray, config: ForestConfig) -> RandomForestClassifier:
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(config.trees, n_jobs=config.threads, random_state=config.seed)
    return forest.fit(features, labels)


def _jakteristics() -> Any:  # the package has no types
    from jakteristics import compute_features

    return compute_features

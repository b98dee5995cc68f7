"""A cloud checks itself, and its attributes go where its points go."""

from __future__ import annotations

import numpy as np
import pytest

from pointcloud.cloud import Cloud
from pointcloud.errors import PointloomError, ScanError, SchemaError, StorageError
from tests.support.clouds import make_cloud


@pytest.mark.parametrize(
    ("xyz", "attributes", "words"),
    [
        (np.zeros((3, 2)), {}, r"\(P, 3\) float64"),
        (np.zeros(3), {}, r"\(P, 3\) float64"),
        (np.zeros((3, 3), np.float32), {}, "float32"),
        (np.array([[0, 0, np.nan], [0, 0, 0], [np.inf, 0, 0]]), {}, "2 of 3 points have NaN"),
        (np.zeros((3, 3)), {"intensity": np.zeros(2)}, "'intensity' has shape"),
        (np.zeros((3, 3)), {"colour": np.zeros(3)}, "unknown attribute 'colour'"),
    ],
)
def test_what_is_no_cloud_is_refused(xyz: np.ndarray, attributes: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(ScanError, match=words):
        Cloud(xyz, attributes)


@pytest.mark.parametrize("index", [np.array([5, 1, 1]), np.arange(40) % 3 == 0, slice(3, 9)], ids=str)
def test_attributes_go_with_their_points(index: np.ndarray | slice) -> None:
    cloud = make_cloud(40, colours=True)
    part = cloud[index]
    np.testing.assert_array_equal(part.xyz, cloud.xyz[index])
    assert set(part.attributes) == set(cloud.attributes)
    for name, values in cloud.attributes.items():
        np.testing.assert_array_equal(part.attributes[name], values[index])


def test_every_error_a_user_can_act_on_is_one_of_pointloom() -> None:
    assert all(issubclass(kind, PointloomError) for kind in (ScanError, SchemaError, StorageError))
    # A quarantine catches ScanError: it must not swallow storage that is down, or another schema.
    assert not issubclass(StorageError, ScanError)
    assert not issubclass(SchemaError, ScanError)

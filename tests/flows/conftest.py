"""One Prefect server for all tests of flows, and small simulated scans to run them on."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointcloud.simulate.files import write_survey
from pointcloud.simulate.survey import SurveyConfig
from tests.support.prefect_server import prefect_server
from tests.support.ray_cluster import end_of_the_shared_ray, no_ray_cluster, ray_cluster

__all__ = ["end_of_the_shared_ray", "no_ray_cluster", "prefect_server", "ray_cluster"]


@pytest.fixture(scope="session", autouse=True)
def _on_the_server_of_the_tests(prefect_server: None) -> None:
    """Every flow of this folder runs on it."""


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adjacent simulated tiles of 40 m with exact labels."""
    folder = tmp_path_factory.mktemp("survey")
    write_survey(SurveyConfig(seed=3, tile_size_m=40.0, tiles=(2, 1), points_per_m2=3.0), folder)
    return folder

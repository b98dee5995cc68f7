"""Ray's sockets lie where their paths fit, however long the path of temporary files is."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import ray

from pointcloud.errors import PointloomError
from tasks.runtime.cluster import ray_session
from tasks.runtime.ray_folder import short_ray_folder
from tests.support.clouds import assert_one_sentence

pytestmark = pytest.mark.usefixtures("no_ray_cluster")


@pytest.fixture
def long_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_short_folder_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    with short_ray_folder():
        assert "RAY_TMPDIR" not in os.environ


def test_a_long_folder_is_replaced_by_a_short_one_for_the_time_of_the_session(long_folder: Path) -> None:
    with short_ray_folder():
        folder = os.environ["RAY_TMPDIR"]
        assert len(folder) < 37 < len(str(long_folder))
    assert not Path(folder).exists()
    assert "RAY_TMPDIR" not in os.environ


def test_a_long_folder_of_the_users_own_choice_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'long' * 25}")
    with pytest.raises(PointloomError, match=r"RAY_TMPDIR .* name a shorter folder") as error, ray_session(1):
        pass
    assert_one_sentence(error, "long")


@pytest.mark.slow
def test_a_local_ray_starts_where_temporary_files_have_a_long_path(
    long_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("TMPDIR", str(long_folder))
    with ray_session(1):
        assert ray.is_initialized()
    assert not list(long_folder.iterdir())

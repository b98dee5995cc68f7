"""A project in a temporary folder, whose services are ended with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.services import temporary_project


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    with temporary_project(tmp_path) as folder:
        yield folder

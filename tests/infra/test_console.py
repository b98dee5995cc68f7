"""A flow run whose Prefect worker is gone prints into a pipe that nobody reads."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from infra.environment import ENVIRONMENT

_LOGS = """
import logging, os
from prefect.logging.configuration import setup_logging
setup_logging()
logger = logging.getLogger("prefect.of_this_test")
for number in range(3):
    logger.error("line %d", number)
os.write({done}, b"done")
"""


@pytest.mark.parametrize("console", ["as we name it", "of Prefect"])
def test_logging_outlives_the_reader_of_the_console(console: str) -> None:
    variables = {**os.environ, "PREFECT_LOGGING_TO_API_ENABLED": "false", **ENVIRONMENT}
    if console == "of Prefect":
        del variables["PREFECT_LOGGING_HANDLERS_CONSOLE_CLASS"]
    nobody, broken = os.pipe()
    os.close(nobody)
    heard, done = os.pipe()
    try:
        code = subprocess.run(
            [sys.executable, "-c", _LOGS.format(done=done)],
            env=variables,
            stdout=broken,
            stderr=broken,
            pass_fds=[done],
            timeout=120,
        ).returncode
    finally:
        os.close(broken)
        os.close(done)
    with os.fdopen(heard, "rb") as said:
        # The other half says when Prefect no longer needs this.
        assert (said.read() == b"done") is (console == "as we name it"), code

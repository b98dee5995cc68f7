"""The log of a flow run whose Prefect worker was killed: it still goes to the server, and the run goes on.

A Prefect worker reads what its flow runs print. Once it is gone nobody does, and the library that Prefect prints
with then ends the thread that logs a line, or the whole flow run.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from prefect.logging.handlers import PrefectConsoleHandler


class LastingConsole(PrefectConsoleHandler):
    """Prefect's console, named in `infra.environment`; it prints nothing when the other end is closed."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; quiet once the pipe is closed."""
        # Rich raises this for a broken pipe, after it has made this console quiet.
        with suppress(SystemExit):
            super().emit(record)

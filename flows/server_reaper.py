"""Waits for the process of a flow to end, and does what it could not if it was killed.

A process of its own, which `flows.embedded_server` starts: nothing can be done by a process that runs out of memory, or
that Ray ends at once because its object store on this machine is gone.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

ALL_IS_WELL = 0


def main() -> None:
    """Read process ids of the embedded server from stdin, a newer one in place of the last, until that ends.

    Stdin ends with the flow's process. Unless it said ALL_IS_WELL before, the server is asked to end, and the user is
    told.
    """
    server = None
    for line in sys.stdin:
        server = int(line)
        if server == ALL_IS_WELL:
            return
    if server is None:
        return
    with suppress(ProcessLookupError):
        os.kill(server, signal.SIGTERM)
    print(
        "error: the flow's process ended before its flow: it was killed, or Ray's object store on this machine was (is "
        "there memory enough?); run the same command again, it goes on from what is done.",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    # What ends the flow's process, and may reach all processes of a job, must not end this one before.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    main()

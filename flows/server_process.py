"""The process of the embedded Prefect server, which `flows.embedded_server` starts.

    python -P server_process.py FD

It serves on the socket with that file descriptor until its stdin ends. Stdin is a pipe whose other end the flow's
process holds, so the server ends with that process, however it ends: also when it is killed, runs out of memory, or is
ended by Ray because its object store on this machine is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

ALL_IS_WELL = b"all is well"
_GRACE_SECONDS = 10
_HEARD_BY_THE_FLOW = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def main() -> None:
    """Serve until stdin ends; unless ALL_IS_WELL was read before that, print what has happened."""
    # Ctrl-C reaches all processes of a terminal, and `timeout` and Slurm end all that they have started: the flow has
    # yet to report its end to this server. Threads that are started from here on block these signals too.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD_BY_THE_FLOW)

    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="on", timeout_graceful_shutdown=_GRACE_SECONDS)
    )
    threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])


def _end_with_stdin(server: object) -> None:
    words = b""
    while some := os.read(0, 1024):
        words += some
    if words != ALL_IS_WELL:
        print(
            "error: the flow's process ended before its flow: it was killed, or Ray's object store on this machine was "
            "(is there enough memory?); run the same command again, it goes on from what is done.",
            file=sys.stderr,
            flush=True,
        )
    server.should_exit = True  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()

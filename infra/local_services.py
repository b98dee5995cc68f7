"""`make up`, `make down`, `make status`: Prefect on this machine, in the background.

`up` starts a Prefect server and a process worker, deploys prefect.yaml and makes sure of the automation of
heartbeat.yaml. A worker that has died is started again beside the server, which stays. All of it lives in
.pointloom/up below the current folder: state.json (what runs), the logs, and the server's database, which
stays, so that the history of runs is there after the next `up`. Flow runs work in the current folder: the
pull step of prefect.yaml reads it from POINTLOOM_HOME.
"""

from __future__ import annotations

import argparse
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from infra import prefect_api, processes
from infra.environment import environment
from infra.processes import Service
from infra.service_state import HOST, State, one_at_a_time, read_state, write_state
from pointcloud.errors import PointloomError

DEFAULT_PORT = 4200
WORK_POOL = "pointloom"
_WORKER = "Prefect worker"
_CONCURRENT_RUNS = 2
_START_SECONDS = 180.0
_END_SECONDS = 20.0
_PORTS_TRIED = 50
_PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")


def main(arguments: list[str]) -> int:
    """Run `up`, `down` or `status` in the current folder; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.local_services", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="first port to try (default %(default)s)"
    )
    given = parser.parse_args(arguments)
    folder = Path.cwd() / ".pointloom" / "up"
    try:
        with one_at_a_time(folder):
            signal.signal(signal.SIGTERM, _interrupt)
            if given.command == "up":
                return up(folder, given.port)
            return down(folder) if given.command == "down" else status(folder)
    except PointloomError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; 'make status' says what is running.", file=sys.stderr)
        return 130


def up(folder: Path, first_port: int = DEFAULT_PORT) -> int:
    """Start what is not running yet; what was started is ended again where something fails.

    Raises:
        PointloomError: no prefect.yaml here; a service does not start.
    """
    project = Path.cwd()
    if not (project / "prefect.yaml").exists():
        raise PointloomError(f"no prefect.yaml in {project}; run this in the folder of the project.")
    state = read_state(folder)
    if state is not None:
        dead = _say_dead(state)
        if state.ready and dead in ([], [_WORKER]):
            if dead:
                _start_worker_again(folder, project, state)
            else:
                print("Already up.")
            _tell(state)
            return 0
        print("Found what is left of an earlier start; ending it first.")
        _end(folder, state)
    state = State(mark=uuid.uuid4().hex, port=free_port(first_port))
    if state.port != first_port:
        print(f"Port {first_port} is taken; using {state.port}.")
    try:
        _start(folder, project, state)
    except BaseException:
        _end(folder, state)
        raise
    _tell(state)
    return 0


def down(folder: Path) -> int:
    """End what `up` started, and nothing else."""
    state = read_state(folder)
    if state is None:
        print("Nothing is running.")
        return 0
    ran = [s.name for s in state.services if processes.running(s)]
    if killed := _end(folder, state):
        print(f"{len(killed)} process(es) did not end when asked and were killed.")
    print(f"Ended: {', '.join(ran)}." if ran else "Nothing was running any more; the old state is removed.")
    return 0


def status(folder: Path) -> int:
    """Say what runs; 1 where something that was started has died."""
    state = read_state(folder)
    if state is None:
        print("Nothing is running; 'make up' starts the services.")
        return 0
    if _say_dead(state) or not state.ready:
        print("Not all is up; 'make up' starts what is missing, 'make down' ends the rest.")
        return 1
    _tell(state)
    return 0


def free_port(first: int) -> int:
    """The first port from `first` on that nobody listens on.

    Raises:
        PointloomError: all of many ports are taken.
    """
    for port in range(first, min(first + _PORTS_TRIED, 65536)):
        with socket.socket() as probe:
            # As the server itself does: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise PointloomError(
        f"no free port from {first} on; name another: python -m infra.local_services up --port N"
    )


def _start(folder: Path, project: Path, state: State) -> None:
    variables = environment(folder, project, state.api_url)

    def run(what: str, command: list[str]) -> None:
        log = folder / f"{command[0]}.log"
        print(f"{what} (log: {_short(log)}) …", flush=True)
        try:
            with log.open("ab") as output:
                subprocess.run(
                    [*_PREFECT, *command],
                    env=variables | {processes.MARK: state.mark},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=_START_SECONDS,
                    check=True,
                )
        except subprocess.SubprocessError as error:
            raise PointloomError(
                f"'prefect {' '.join(command)}' failed; its reason is at the end of {log}."
            ) from error

    server = ["server", "start", "--host", HOST, "--port", str(state.port)]
    _serve(folder, state, "Prefect server", server, variables, lambda: prefect_api.is_healthy(state.api_url))
    run("Creating the work pool", ["work-pool", "create", WORK_POOL, "--type", "process", "--overwrite"])
    run("Deploying prefect.yaml", ["deploy", "--all"])
    prefect_api.ensure_automation(state.api_url, prefect_api.HEARTBEAT)
    _start_worker(folder, project, state)
    state.ready = True
    write_state(folder, state)


def _start_worker(folder: Path, project: Path, state: State) -> None:
    # The server shows a worker that was killed as online for a while yet, and the new one has its name.
    began = datetime.now(UTC)
    _serve(
        folder,
        state,
        _WORKER,
        ["worker", "start", "--pool", WORK_POOL, "--name", "local", "--limit", str(_CONCURRENT_RUNS)],
        environment(folder, project, state.api_url),
        lambda: prefect_api.worker_is_online(state.api_url, WORK_POOL, began),
    )


def _start_worker_again(folder: Path, project: Path, state: State) -> None:
    """Start the worker again beside the server and the flow runs, which go on even if this fails."""
    state.services = [service for service in state.services if service.name != _WORKER]
    others = len(state.services)
    try:
        _start_worker(folder, project, state)
    except BaseException:
        for service in state.services[others:]:
            processes.end(service, _END_SECONDS)
        raise


def _serve(
    folder: Path,
    state: State,
    name: str,
    command: list[str],
    variables: dict[str, str],
    is_ready: Callable[[], bool],
) -> None:
    log = folder / f"{name.replace(' ', '-')}.log"
    print(f"Starting the {name} (log: {_short(log)}) …", flush=True)
    state.services.append(processes.start(name, [*_PREFECT, *command], variables, log, state.mark))
    write_state(folder, state)
    _wait(state.services[-1], is_ready)


def _wait(service: Service, is_ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        # Another server could answer on the port; then the one started here has ended.
        alive = processes.running(service) is not None
        if alive and is_ready():
            return
        if not alive:
            raise PointloomError(
                f"the {service.name} ended while starting; its reason is at the end of {service.log}."
            )
        if time.monotonic() > deadline:
            raise PointloomError(
                f"the {service.name} is not ready after {_START_SECONDS:.0f} s; see {service.log}."
            )
        time.sleep(0.5)


def _end(folder: Path, state: State) -> list[int]:
    # In reverse order, so that the Prefect worker can still tell the server that its runs have ended.
    killed = [pid for service in reversed(state.services) for pid in processes.end(service, _END_SECONDS)]
    killed += processes.end_marked(state.mark, _END_SECONDS)
    (folder / "state.json").unlink(missing_ok=True)
    return killed


def _say_dead(state: State) -> list[str]:
    """Say what was started and has died; its names."""
    dead = [service for service in state.services if not processes.running(service)]
    for service in dead:
        print(f"{service.name}: has ended; see {service.log}")
    return [service.name for service in dead]


def _tell(state: State) -> None:
    python, deployments = _short(Path(sys.executable)), prefect_api.deployments(state.api_url)
    print(f"\nPrefect UI   {state.url}")
    print(f"deployments  {', '.join(deployments)}")
    print("run one      in the UI (Deployments → Run), or:")
    print(f"  export PREFECT_API_URL={state.api_url}")
    print(f"  {python} -m prefect deployment run segment/segment --watch --params \\")
    print("""    '{"parameters": {"scans": ["tiles"], "checkpoint": "checkpoint", "out": "labelled"}}'""")
    print(f"paths        relative ones count from {Path.cwd()}")
    print("stop         make down")


def _interrupt(number: int, frame: FrameType | None) -> None:
    # SIGTERM gets the same orderly end as Ctrl-C.
    raise KeyboardInterrupt


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

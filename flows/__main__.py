"""The command line, thin over the flows: `python -m flows COMMAND`, or `python -m flows --help`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import yaml
from cyclopts import App, Parameter
from cyclopts.config import Dict

from pointcloud.errors import PointloomError

_HELP = """Pointloom: scans in, labelled clouds out.

Each command runs one flow here and now, on an embedded Prefect server unless PREFECT_API_URL names one, and on a
Ray cluster on this machine unless RAY_ADDRESS names one; inspect only looks, and needs neither. `--parameters FILE`
takes the options from a JSON or YAML file; what is also given on the command line wins. The exit status is 0 when
all went well, not 0 otherwise.
"""

_COMMANDS = ("inspect", "preprocess", "train", "crossval", "ablate", "segment", "evaluate", "demo")

_ENVIRONMENT = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The embedded server starts within 15 s on a free machine; Prefect gives it 20.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "INFO",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Threads are counted in the jobs; what OpenMP would add on its own only fights for the same CPUs.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    # Prefect reads its settings when it is imported, which the commands do, one by one: `--help` stays quick.
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    app = App(
        name="python -m flows",
        help=_HELP,
        version_flags=(),
        default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    )
    for command in _COMMANDS:
        app.command(f"flows.{command}:command", name=command)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app.config = parameters_from_file(arguments)
        app(arguments)
    except PointloomError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    # Unwinds, so that the flow run, Ray's processes and the embedded server end as after Ctrl-C.
    sys.exit(128 + number)


def parameters_from_file(arguments: list[str]) -> list[Dict]:
    """Take `--parameters FILE` out of the arguments and read the file.

    Raises:
        PointloomError: no such file, or no JSON or YAML mapping in it.
    """
    if "--parameters" not in arguments:
        return []
    at = arguments.index("--parameters")
    path = "".join(arguments[at + 1 : at + 2])
    del arguments[at : at + 2]
    try:
        values = yaml.safe_load(Path(path).read_text())  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise PointloomError(
            f"cannot read parameters from {path!r}: {reason}; expected a JSON or YAML file."
        ) from error
    if not isinstance(values, dict):
        raise PointloomError(
            f"{path!r} holds no mapping of parameters; expected lines like 'out: labelled/'."
        )
    # The options are called --tile-size-m, the fields tile_size_m; a file may use either.
    named = {str(name).replace("_", "-"): value for name, value in values.items()}
    return [Dict({arguments[0]: named} if arguments else {}, source=path)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

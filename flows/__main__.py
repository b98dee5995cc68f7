"""The command line: `pointloom COMMAND`, the same as `python -m flows COMMAND`."""

from __future__ import annotations

import atexit
import importlib.metadata
import importlib.util
import os
import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import yaml
from cyclopts import App, CycloptsError, Parameter, UnknownOptionError
from cyclopts.config import Dict

from flows.preflight import (
    PrefectSettingsError,
    any_home,
    check_caches,
    check_prefect_settings,
    check_proxies,
    writable_prefect_home,
)
from pointcloud.errors import PointloomError, one_line
from tasks.runtime.environment import PREFECT, THREADS, set_defaults, without_proxy

_HELP = """Pointloom: scans in, labelled clouds out.

Each command runs one flow at once, on an embedded Prefect server unless PREFECT_API_URL names one, and on a
Ray cluster on this machine unless RAY_ADDRESS names one; inspect needs neither. `--parameters FILE`
takes the options from a JSON or YAML file; what is also given on the command line wins. The exit status is 0 when
all went well, not 0 otherwise.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Command:
    """What `--help` and the check of the extras say of a command, known before its module is imported.

    Attributes:
        help: what `pointloom --help` lists; the command's own `--help` shows its docstring.
        extras: what of pyproject.toml's extras it needs.
    """

    help: str
    extras: tuple[str, ...] = ("orchestration", "train")


# In the order of the work.
COMMANDS = {
    "inspect": _Command(
        help="Show what scans hold and the block sizes that suit them.",
        extras=(),
    ),
    "preprocess": _Command(help="Cut scans into blocks, a dataset to train on.", extras=("orchestration",)),
    "train": _Command(help="Train a DeepGCN on a blocks dataset."),
    "segment": _Command(help="Label scans with a trained network."),
    "evaluate": _Command(help="Score labelled clouds against the truth."),
    "crossval": _Command(help="Cross-validate: a training for each part of the ground."),
    "ablate": _Command(help="Make the ablation table of the DeepGCN papers."),
    "demo": _Command(help="Do all of it on a real scan, in minutes."),
}

# One package of each extra that no other extra installs: if it is missing, the extra is not installed.
_PACKAGES = {
    "orchestration": ("prefect", "ray", "plotly"),
    "train": ("torch", "torch_geometric", "safetensors"),
}


def main(arguments: list[str]) -> int:
    """Run one command; the exit status."""
    # Prefect reads its settings when it is imported, which the commands do, one by one: `--help` stays quick.
    set_defaults(PREFECT, THREADS, {"PREFECT_LOGGING_LEVEL": "INFO"})
    os.environ.update(without_proxy(os.environ))
    app = command_line(arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        _check_extras(arguments)
        app.config = parameters_from_file(arguments)
        if _starts_a_flow(arguments):
            # Mistyped options are reported before Prefect is imported, which takes seconds.
            app.parse_args(arguments, exit_on_error=False, print_error=False)
            check_proxies()
            check_caches()
            home = ExitStack()
            home.enter_context(any_home())
            home.enter_context(writable_prefect_home())
            atexit.register(home.close)  # after the embedded server, which ends with this process
            check_prefect_settings()
        app(arguments, exit_on_error=False, print_error=False)
    except PrefectSettingsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (PointloomError, CycloptsError) as error:
        sentence = _sentence(error) if isinstance(error, CycloptsError) else str(error)
        print(f"error: {sentence}", file=sys.stderr)
        return 1
    return 0


def run() -> NoReturn:
    """Run the command that the process was started with, and end it with the exit status."""
    sys.exit(main(sys.argv[1:]))


def _sentence(error: CycloptsError) -> str:
    """What is wrong with an option; an option from a parameter file has the name that the file gives it."""
    from pydantic import ValidationError  # here: `--help` comes quickly

    if isinstance(error, UnknownOptionError) and error.token.source != "cli" and error.token.keyword:
        from flows.parameters.base import unknown_names

        name = error.token.keyword.strip("[]").replace("-", "_")
        options = (option for argument in error.argument_collection for option in argument.names)
        fields = [
            option.removeprefix("--").replace("-", "_") for option in options if option.startswith("--")
        ]
        return unknown_names([name], fields, f"in {error.token.source!r}")
    if isinstance(error.__cause__, ValidationError):
        return "; ".join(
            f"--{'.'.join(map(str, one['loc'])).replace('_', '-')}: {one['msg']}"
            for one in error.__cause__.errors()
        )
    error.verbose = False
    return " ".join(str(error).split())


def command_line(arguments: list[str]) -> App:
    """The commands and their options. Of the command that `arguments` begin with, the help is its own docstring."""
    app = App(
        name=_program(),
        help=_HELP,
        version=_version,
        version_flags=("--version",),
        default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    )
    app["--help"].sort_key = app["--version"].sort_key = len(COMMANDS)
    for position, (name, command) in enumerate(COMMANDS.items()):
        in_list = command.help if arguments[:1] != [name] else None
        where = "flows.inspect:command" if name == "inspect" else f"flows.commands:{name}"
        app.command(where, name=name, help=in_list, sort_key=position)
    return app


def _program() -> str:
    started = Path(sys.argv[0])
    return "pointloom" if started.stem == "pointloom" else "python -m flows"


def _version() -> str:
    return f"pointloom {importlib.metadata.version('pointloom')}"


def _starts_a_flow(arguments: list[str]) -> bool:
    command = COMMANDS.get(arguments[0]) if arguments else None
    return command is not None and "orchestration" in command.extras and "--help" not in arguments


def _check_extras(arguments: list[str]) -> None:
    command = COMMANDS.get(arguments[0]) if arguments else None
    missing = {
        extra: [package for package in _PACKAGES[extra] if importlib.util.find_spec(package) is None]
        for extra in (command.extras if command else ())
    }
    extras = ",".join(extra for extra, packages in missing.items() if packages)
    if extras:
        packages = ", ".join(package for of_extra in missing.values() for package in of_extra)
        raise PointloomError(
            f"the command {arguments[0]!r} needs packages that are not installed ({packages}); "
            f"install them: pip install 'pointloom[{extras}]'."
        )


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
        reason = one_line(error)
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
    run()

"""Write the generated parts of the documentation from the code: `python -m docs.generate [--check]`.

A page marks a generated part with two comments; what stands between them is replaced:

    <!-- generated: command segment -->
    <!-- end -->

The pages in `docs/reference/api` are generated as a whole, one for each package. `--check` writes nothing; its exit
status is 1 where a page is out of date, and it names the page.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa
import yaml
from cyclopts import App
from cyclopts.argument import Argument
from pydantic import BaseModel

from flows.__main__ import COMMANDS, command_line
from flows.parameters.base import descriptions
from models.network.ablations import ROWS
from models.recipes import AIRBORNE, RECIPES, SPARSE, TrainConfig
from models.weights.checkpoint import Checkpoint
from pointcloud import markdown
from pointcloud.blocks.features import FEATURES
from pointcloud.blocks.surroundings import ECHOES, SHAPE
from pointcloud.dataset.store import BLOCK_SCHEMA, SCHEMA_VERSION, Manifest
from pointcloud.labels import PRESETS
from pointcloud.storage.ledger import Record

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"
API = DOCS / "reference" / "api"
API_PACKAGES = ("pointcloud", "models")
_PART = re.compile(r"(<!-- generated: (.+?) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    """Write the pages, or only compare them; the exit status."""
    check = arguments == ["--check"]
    if arguments and not check:
        print("usage: python -m docs.generate [--check]", file=sys.stderr)
        return 2
    wanted = pages()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    obsolete = [path for path in API.glob("*.md") if path not in wanted]
    for path in stale + obsolete:
        print(
            f"{'out of date' if check else 'written' if path in wanted else 'removed'}: {path.relative_to(PROJECT)}"
        )
    if check:
        return int(bool(stale or obsolete))
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
    for path in obsolete:
        path.unlink()
    return 0


def pages() -> dict[Path, str]:
    """Every page that is generated, wholly or in part, and what it should hold."""
    wanted = {API / f"{package}.md": text for package, text in _api_pages()}
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text()
        if path.parent != API and _PART.search(text):
            wanted[path] = _PART.sub(lambda found: found[1] + "\n" + _part(found[2]) + "\n" + found[4], text)
    return wanted


def _part(name: str) -> str:
    kind, _, rest = name.partition(" ")
    return PARTS[kind](rest).rstrip() + "\n"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; cells may hold any text."""
    return "\n".join(markdown.table(head, [[" ".join(cell.split()) for cell in row] for row in rows])) + "\n"


# The command line and the parameters of flows


def commands(_: str) -> str:
    """A table of the commands."""
    return table(
        ["command", "what it does", "extras it needs"],
        [
            [f"[`{name}`]({name}.md)", one.help, ", ".join(one.extras) or "none"]
            for name, one in COMMANDS.items()
        ],
    )


def command(name: str) -> str:
    """Usage and options of one command, as the command line and the flow's pydantic model have them."""
    app = command_line([name])[name]
    arguments = app.assemble_argument_collection()
    model = next((argument.hint for argument in arguments if _is_model(argument.hint)), None)
    lines = []
    if model is not None and model.__doc__:
        lines += [textwrap.dedent(model.__doc__).strip(), ""]
    required: list[list[str]] = []
    others: list[list[str]] = []
    for argument in arguments:
        if not _is_model(argument.hint):
            (required if argument.required else others).append(_option(argument, model, app))
    head = ["option", "values", "default", "meaning"]
    return "\n".join(lines) + "\n" * bool(lines) + table(head, required + others)


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, BaseModel)


def _option(argument: Argument, model: type[BaseModel] | None, app: App) -> list[str]:
    default = argument.field_info.default
    hidden = ("--empty-", "--no-") if default is False else ("--empty-",)
    names = [f"`{name}`" for name in argument.names if not name.startswith(hidden)]
    meaning = argument.parameter.help or _documented(app.help, argument)
    return [
        ", ".join(names),
        _values(argument, model),
        "**required**" if argument.required else _value(default),
        meaning,
    ]


def _documented(text: str, argument: Argument) -> str:
    described = section_of(text, "Args")
    return next((described[name] for name in argument.field_info.names if name in described), "")


def _value(value: Any) -> str:
    if value is None or value in ([], {}, ""):
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (list, tuple)):
        return f"`{' '.join(map(str, value))}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


_KINDS = {"str": "text", "int": "whole number", "float": "number", "bool": "flag"}


def _values(argument: Argument, model: type[BaseModel] | None) -> str:
    options = [option for option in get_args(argument.hint) if option is not type(None)]
    is_optional = len(options) < len(get_args(argument.hint))
    hint = options[0] if is_optional and len(options) == 1 else argument.hint
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        kind = ", ".join(f"`{option}`" for option in inner)
    elif origin is list:
        kind = f"{_KINDS.get(inner[0].__name__, '')}, {'one or more' if argument.required else 'any number of them'}"
    elif origin is tuple:
        kind = f"{len(inner)} numbers"
    elif origin is dict:
        kind = "name and value"
    else:
        kind = _KINDS.get(getattr(hint, "__name__", ""), str(hint))
    return " ".join([kind, *_bounds(argument, model)])


def _bounds(argument: Argument, model: type[BaseModel] | None) -> Iterator[str]:
    field, kind = None, model
    for key in argument.keys:
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
            return
        field = kind.model_fields.get(key)
        kind = None if field is None else field.annotation  # type: ignore[assignment]
    for bound in [] if field is None else field.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            if getattr(bound, name, None) is not None:
                yield f"{sign} {getattr(bound, name):g}"


def recipes(_: str) -> str:
    """The fields of a training, and what each recipe sets them to."""
    docs = descriptions(TrainConfig)
    rows = []
    for field in dataclasses.fields(TrainConfig):
        values = [_value(getattr(config, field.name)) for config in RECIPES.values()]
        suited = [_value(extra[field.name]) if field.name in extra else "" for extra in (AIRBORNE, SPARSE)]
        rows.append([f"`--{field.name.replace('_', '-')}`", *values, *suited, docs.get(field.name, "")])
    return table(["option", *RECIPES, "airborne", "sparse", "meaning"], rows)


def ablation(_: str) -> str:
    """The rows of the ablation table."""
    return table(
        ["row", "compared within", "change"], [[f"`{r.name}`", r.group, r.about] for r in ROWS.values()]
    )


def deployments(_: str) -> str:
    """The deployments of prefect.yaml."""
    read = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]
    rows = []
    for one in read:
        schedules = ", ".join(f"`{s['cron']}` {s['timezone']}, off" for s in one.get("schedules", []))
        rows.append(
            [
                f"`{one['entrypoint'].rsplit('.', 1)[1]}/{one['name']}`",
                one["description"],
                schedules or "none",
            ]
        )
    return table(["deployment", "what it does", "schedule"], rows)


# What is on disk


def blocks(_: str) -> str:
    """The columns of a shard."""
    rows = [
        [f"`{field.name}`", f"`{_arrow(field.type)}`", (field.metadata or {}).get(b"doc", b"").decode()]
        for field in BLOCK_SCHEMA
    ]
    return f"Schema version {SCHEMA_VERSION}.\n\n" + table(["column", "type", "meaning"], rows)


def _arrow(kind: pa.DataType) -> str:
    return re.sub(r"<\w+: (\w+)(?: not null)?>", r"<\1>", str(kind))


def manifest(_: str) -> str:
    """The fields of a manifest."""
    return fields(Manifest)


def checkpoint(_: str) -> str:
    """The fields of a checkpoint's record."""
    return fields(Checkpoint)


def record(_: str) -> str:
    """The fields of a ledger's record."""
    return fields(Record)


def fields(kind: type) -> str:
    """The attributes of a dataclass as its docstring describes them."""
    return table(["field", "meaning"], [[f"`{name}`", text] for name, text in attributes_of(kind).items()])


def attributes_of(kind: type) -> dict[str, str]:
    """Name -> description, from the section `Attributes` of a class's docstring in Google style."""
    return section_of(kind.__doc__ or "", "Attributes")


def section_of(docstring: str, section: str) -> dict[str, str]:
    """Name -> description, from a section of a docstring in Google style."""
    text = inspect.cleandoc(docstring)
    lines = re.search(rf"^{section}:\n((?: .*\n?)+)", text, re.MULTILINE)
    found: dict[str, str] = {}
    names: list[str] = []
    for line in textwrap.dedent(lines[1]).splitlines() if lines else []:
        if started := re.match(r"(\w+(?:, \w+)*): (.*)", line):
            names = started[1].split(", ")
            found |= dict.fromkeys(names, started[2])
        else:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def features(_: str) -> str:
    """Features: their channels and what they need."""
    rows = []
    for name, (needed, num_channels) in FEATURES.items():
        rows.append(
            [f"`{name}`", str(num_channels), ", ".join(f"`{a}`" for a in needed) or "coordinates alone"]
        )
    channels = f"Channels of `shape_…`: {', '.join(SHAPE)}.\n\nChannels of `echoes_…`: {', '.join(ECHOES)}.\n"
    return table(["feature", "channels", "attributes that a scan must have"], rows) + "\n" + channels


def schemes(_: str) -> str:
    """The label schemes that are built in."""
    rows = []
    for scheme in PRESETS.values():
        for index, label in enumerate(scheme.classes):
            codes = ", ".join(map(str, label.source_codes))
            rows.append(
                [f"`{scheme.name}`" if index == 0 else "", str(index), label.name, codes, str(label.code)]
            )
    return table(["scheme", "index", "class", "codes read", "code written"], rows)


# API


def _api_pages() -> Iterator[tuple[str, str]]:
    for package in API_PACKAGES:
        folders = sorted({path.parent for path in (PROJECT / package).rglob("*.py")})
        for folder in folders:
            name = ".".join(folder.relative_to(PROJECT).parts)
            yield name, _api_page(name, folder)


def _api_page(name: str, folder: Path) -> str:
    modules = sorted(path for path in folder.glob("*.py") if path.stem not in ("__init__", "__main__"))
    rows = [
        [f"[`{name}.{path.stem}`](#{name}.{path.stem})", first_sentence(_docstring(path))] for path in modules
    ]
    init = folder / "__init__.py"
    lines = [f"# `{name}`", "", _docstring(init) if init.exists() else "", ""]
    lines += [
        "<!-- This page is generated by docs/generate.py. -->",
        "",
        table(["module", "what it is"], rows),
    ]
    lines += [f"::: {name}.{path.stem}\n" for path in modules]
    return "\n".join(lines)


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    return re.split(r"(?<=[.:])\s*\n\s*\n|(?<=\.)\s+(?=[A-Z])|\n\s*\n", text.strip())[0].replace("\n", " ")


PARTS: dict[str, Callable[[str], str]] = {
    "commands": commands, "command": command, "recipes": recipes, "ablation": ablation, "deployments": deployments,
    "blocks": blocks, "manifest": manifest, "checkpoint": checkpoint, "record": record, "features": features,
    "schemes": schemes,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

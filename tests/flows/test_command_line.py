"""The command line: what is wrong is said in one sentence, with a status that is not 0, and nothing is left behind."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cyclopts import App, Parameter

from flows.__main__ import COMMANDS, main, parameters_from_file, run
from models.weights.checkpoint import RECORD
from pointcloud.dataset.store import MANIFEST
from pointcloud.errors import PointloomError
from tasks.segmenting.scans import find_scans
from tests.support import broken_files


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """What stands on stderr, which must be one line that begins with error:."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0]


def other_schema(folder: Path) -> Path:
    folder.mkdir()
    (folder / RECORD).write_text(json.dumps({"schema_version": 99, "weights": "weights.safetensors"}))
    return folder


def test_a_missing_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["preprocess", "--scans", str(tmp_path / "nowhere"), "--out", str(out)]) == 1
    said = one_sentence(capsys)
    assert str(tmp_path / "nowhere") in said
    assert "give an existing file, folder or glob" in said
    assert not out.exists()


def test_an_empty_glob(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = other_schema(tmp_path / "checkpoint")
    assert main(["preprocess", "--scans", f"{tmp_path}/*.laz", "--out", str(tmp_path / "out")]) == 1
    assert "no file matches" in one_sentence(capsys)
    arguments = ["segment", "--scans", f"{tmp_path}/*.laz", "--checkpoint", str(checkpoint), "--out", "out"]
    assert main(arguments) == 1
    assert "schema version 99" in one_sentence(capsys)


def test_a_checkpoint_of_another_schema_or_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = broken_files.one_point(tmp_path)
    out = tmp_path / "labelled"
    for checkpoint, expected in (
        (other_schema(tmp_path / "other"), "this Pointloom reads 1"),
        (tmp_path / "nowhere", "give the folder that the train flow wrote"),
    ):
        arguments = ["segment", "--scans", str(scan), "--checkpoint", str(checkpoint), "--out", str(out)]
        assert main(arguments) == 1
        assert expected in one_sentence(capsys)
    assert not out.exists()


def test_a_dataset_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", "--dataset", str(tmp_path), "--out", str(tmp_path / "checkpoint")]
    assert main(arguments) == 1
    assert "run the preprocess flow first" in one_sentence(capsys)
    (tmp_path / MANIFEST).write_text('{"schema_version": 0}')
    assert main(arguments) == 1
    assert "schema version 0" in one_sentence(capsys)
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    "make", [broken_files.not_a_las, broken_files.truncated_laz, broken_files.zero_bytes]
)
def test_a_scan_that_cannot_be_read(make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = make(tmp_path)
    out = tmp_path / "blocks"
    assert main(["preprocess", "--scans", str(scan), "--out", str(out), "--processes", "1"]) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert scan.name in error[0]
    assert not (out / MANIFEST).exists()
    assert not list(out.rglob("*.parquet"))
    assert not list(out.rglob("*.part"))


def test_settings_that_do_not_fit(survey: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["preprocess", "--scans", str(survey), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--tile-size-m", "3.1", "--voxel-size-m", "0.25"]) == 1
    assert "must be a multiple of voxel_size_m" in one_sentence(capsys)
    assert main([*arguments, "--label-scheme", "no-such-scheme"]) == 1
    assert "expected one of" in one_sentence(capsys)
    assert not (tmp_path / "out").exists()


def test_labelled_clouds_never_overwrite_their_scans(tmp_path: Path) -> None:
    scan = broken_files.one_point(tmp_path)
    with pytest.raises(PointloomError, match="would overwrite its scan"):
        find_scans([str(scan)], str(tmp_path))


def test_parameters_from_a_file_give_way_to_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text("out: from-file\ntile_size_m: 3\nscans: [a, b]\n")
    arguments = ["preprocess", "--parameters", str(file), "--out", "from-line"]
    (config,) = parameters_from_file(arguments)
    assert arguments == ["preprocess", "--out", "from-line"]
    app = App(
        config=[config], default_parameter=Parameter(consume_multiple=True), result_action="return_value"
    )
    app.command("flows.commands:preprocess", name="preprocess")
    _, bound, _ = app.parse_args(arguments)
    parameters = bound.arguments["parameters"]
    assert (parameters.out, parameters.tile_size_m, parameters.scans) == ("from-line", 3.0, ["a", "b"])


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "cannot read"), ("- a\n", "no mapping"), ("{", "cannot read")]
)
def test_a_parameter_file_that_is_none(tmp_path: Path, content: str | None, expected: str) -> None:
    file = tmp_path / "parameters.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(PointloomError, match=expected):
        parameters_from_file(["segment", "--parameters", str(file)])


HEAVY = ("prefect", "ray", "torch", "torch_geometric", "plotly", "pandas")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option_and_loads_neither_prefect_nor_ray_nor_torch(command: str) -> None:
    code = (
        "import sys\nfrom flows.__main__ import main\n"
        f"try:\n    main(['{command}', '--help'])\nexcept SystemExit:\n    pass\n"
        f"loaded = {{*{HEAVY}}} & set(sys.modules)\n"
        "assert not loaded, f'help loads {loaded}'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    options = {
        "inspect": ("--read", "--json", "--crs"),
        "preprocess": ("--scans", "--label-scheme", "--tile-size-m", "--max-quarantined"),
        "train": ("--dataset", "--num-layers", "--epochs", "--num-workers"),
        "segment": ("--scans", "--checkpoint", "--num-actors", "--dry-run"),
    }
    for option in options.get(command, ("--out",)):
        assert option in done.stdout


def test_a_mistyped_option_is_answered_without_loading_prefect_ray_or_torch() -> None:
    code = (
        "import sys\nfrom flows.__main__ import main\n"
        "status = main(['segment', '--scans', 'a', '--checkpoint', 'b', '--out', 'c', '--min-confidense', '1'])\n"
        f"assert status == 1 and not {{*{HEAVY}}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_an_unknown_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["segment", "--scans", "a", "--checkpoint", "b", "--out", "c", "--min-confidense", "1"]
    assert main(arguments) == 1
    assert one_sentence(capsys) == "error: Unknown option: --min-confidense. Did you mean --min-confidence?"


@pytest.mark.parametrize(
    "command", ["preprocess", "train", "segment", "evaluate", "crossval", "ablate", "demo"]
)
def test_an_unknown_name_in_a_parameter_file_is_refused_with_the_one_that_was_meant(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text("ouut: somewhere\n")
    assert main([command, "--parameters", str(file)]) == 1
    assert one_sentence(capsys) == f"error: unknown parameter 'ouut' in '{file}'; did you mean 'out'?"


def test_a_value_that_cannot_be_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["segment", "--scans", "a", "--checkpoint", "b", "--out", "c", "--min-confidence"]
    assert main([*arguments, "3"]) == 1
    assert one_sentence(capsys) == "error: --min-confidence: Input should be less than or equal to 1"
    assert main([*arguments, "much"]) == 1
    assert "--min-confidence" in one_sentence(capsys)


def test_help_lists_the_commands_in_the_order_of_the_work_and_loads_none_of_them() -> None:
    code = (
        "import sys\nfrom flows.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted(name for name in sys.modules if name.startswith(('flows.', 'prefect', 'torch', 'ray.'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *help_lines, loaded = done.stdout.splitlines()
    assert loaded == "['flows.__main__', 'flows.preflight']"
    listed = [line.strip("│ ").split(maxsplit=1) for line in help_lines if line.startswith("│ ")]
    commands = ["inspect", "preprocess", "train", "segment", "evaluate", "crossval", "ablate", "demo"]
    assert [name for name, *_ in listed[: len(commands)]] == commands
    assert all(text.endswith(".") for _, text in listed)


@pytest.mark.parametrize("program", ["pointloom", "python -m flows"])
def test_help_and_errors_name_the_program_as_it_was_started(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = {"pointloom": "/usr/bin/pointloom", "python -m flows": "/src/flows/__main__.py"}
    monkeypatch.setattr(sys, "argv", [started[program], "--help"])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert not stopped.value.code
    assert f"Usage: {program} COMMAND" in capsys.readouterr().out


def test_pointloom_is_the_same_as_python_m_flows() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, name = project["scripts"]["pointloom"].partition(":")
    assert getattr(importlib.import_module(module), name) is run


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--version"])
    assert not stopped.value.code
    assert capsys.readouterr().out == f"pointloom {importlib.metadata.version('pointloom')}\n"


@pytest.mark.parametrize(
    ("command", "extras"), [("preprocess", "orchestration"), ("segment", "orchestration,train")]
)
def test_a_command_whose_extra_is_not_installed(command: str, extras: str) -> None:
    code = (
        "import sys\n"
        "import importlib.machinery\n"
        "missing = ('prefect', 'ray', 'plotly', 'torch', 'torch_geometric', 'safetensors')\n"
        "class Without(importlib.machinery.PathFinder):\n"
        "    @classmethod\n"
        "    def find_spec(cls, name, *where):\n"
        "        return None if name in missing else super().find_spec(name, *where)\n"
        "path_finder = importlib.machinery.PathFinder\n"
        "sys.meta_path = [Without if finder is path_finder else finder for finder in sys.meta_path]\n"
        "from flows.__main__ import main\n"
        f"sys.exit(main(['{command}', '--out', 'x']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the command '{command}' needs packages that are not installed (")
    assert done.stderr.endswith(f"pip install 'pointloom[{extras}]'.\n")
    assert done.stderr.count("\n") == 1


def test_inspect_needs_neither_prefect_nor_ray_nor_torch(survey: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('prefect', 'ray', 'plotly', 'torch', 'torch_geometric'):\n    sys.modules[name] = None\n"
        "from flows.__main__ import main\n"
        f"sys.exit(main(['inspect', {str(survey)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "density" in done.stdout

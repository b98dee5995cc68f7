"""The command line: what is wrong is said in one sentence, with a status that is not 0, and nothing is left behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App, Parameter

from flows.__main__ import main, parameters_from_file
from models.weights.checkpoint import RECORD
from pointcloud.dataset.store import MANIFEST
from pointcloud.errors import PointloomError
from tasks.segmenting.collection import find_scans
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
def test_a_scan_that_cannot_be_read(make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
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
    app.command("flows.preprocess:command", name="preprocess")
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


def test_help_explains_every_option_without_loading_torch() -> None:
    code = (
        "import sys\nfrom flows.__main__ import main\n"
        "try:\n    main(['preprocess', '--help'])\nexcept SystemExit:\n    pass\n"
        "assert not {'torch', 'ray'} & set(sys.modules), 'help loads torch or ray'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for option in ("--scans", "--label-scheme", "--tile-size-m", "--max-quarantined"):
        assert option in done.stdout


def test_an_unknown_option_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["segment", "--scans", "a", "--checkpoint", "b", "--out", "c", "--no-such-option", "1"])
    assert stopped.value.code not in (0, None)
    assert "no-such-option" in capsys.readouterr().err

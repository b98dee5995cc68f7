"""What pyproject.toml, requirements.lock and the other files about the package say of each other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def requirements_of(extra: str) -> Iterator[Requirement]:
    """What an extra asks for, those of the extras that it names among them."""
    for text in PROJECT["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == PROJECT["name"]:
            for named in requirement.extras:
                yield from requirements_of(named)
        else:
            yield requirement


def locked() -> dict[str, set[Version]]:
    """The versions of each package in requirements.lock; some have one for each of several Pythons."""
    versions: dict[str, set[Version]] = {}
    for name, version in re.findall(
        r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    ):
        versions.setdefault(canonicalize_name(name), set()).add(Version(version))
    return versions


def test_the_lock_has_what_pyproject_asks_for() -> None:
    versions = locked()
    asked = [*map(Requirement, PROJECT["dependencies"]), *requirements_of("dev")]
    assert len(asked) > 40
    wrong = [
        str(requirement)
        for requirement in asked
        if requirement.name != "torch"
        and (
            canonicalize_name(requirement.name) not in versions
            or not all(
                requirement.specifier.contains(v) for v in versions[canonicalize_name(requirement.name)]
            )
        )
    ]
    assert not wrong, "run `make lock`"


def test_everything_in_the_lock_has_hashes_and_comes_from_no_named_place() -> None:
    text = (ROOT / "requirements.lock").read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "-index" not in text


def test_torch_is_locked_by_its_exact_version_and_described_as_that_version() -> None:
    (torch,) = (
        Requirement(text) for text in PROJECT["optional-dependencies"]["train"] if text.startswith("torch==")
    )
    (described,) = (
        entry for entry in PYPROJECT["tool"]["uv"]["dependency-metadata"] if entry["name"] == "torch"
    )
    assert str(torch.specifier) == f"=={described['version']}"
    assert not {name for name in locked() if name == "torch" or name.startswith(("nvidia-", "cuda-"))}


def test_reading_and_inspecting_need_no_torch_ray_or_prefect() -> None:
    names = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert "laspy" in names
    assert not names & {"torch", "torch-geometric", "ray", "prefect", "plotly", "jinja2"}


def test_packages_are_marked_as_typed() -> None:
    for pattern in PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]:
        assert (ROOT / pattern.rstrip("*") / "py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["*"]


def test_the_version_is_the_same_everywhere() -> None:
    version = PROJECT["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f'version: "{version}"' in (ROOT / "prefect.yaml").read_text()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text()
    for file in ("Dockerfile", "compose.yaml"):
        images = re.findall(r"pointloom:(\d[\w.]*)", (ROOT / "infra" / file).read_text())
        assert images
        assert set(images) == {version}

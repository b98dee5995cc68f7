"""The site is built strictly from the pages, and what leaves docs/ is rewritten."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

from docs import hooks

PROJECT = hooks.PROJECT
HERE = PurePosixPath("docs/developers")


@pytest.mark.parametrize(
    ("markdown", "repository", "expected"),
    [
        ("[the plan](../../prefect.yaml)", "", "the plan (`prefect.yaml`)"),
        ("[prefect.yaml](../../prefect.yaml)", "", "`prefect.yaml`"),
        ("[plan](../../prefect.yaml)", "https://host/us", "[plan](https://host/us/blob/main/prefect.yaml)"),
        ("[words](../concepts/vocabulary.md#top)", "", "[words](../concepts/vocabulary.md#top)"),
        ("[gone](../../gone.md)", "", "[gone](../../gone.md)"),
        ("[web](https://host/page)", "", "[web](https://host/page)"),
    ],
)
def test_links_that_leave_the_pages(markdown: str, repository: str, expected: str) -> None:
    assert hooks.links_for_site(markdown, HERE, HERE, repository) == expected


def test_links_of_an_included_file_are_made_right_for_the_page() -> None:
    markdown = "[Accuracy](../../docs/benchmarks/accuracy.md)"
    source = PurePosixPath("pretrained/airborne")
    found = hooks.links_for_site(markdown, source, PurePosixPath("docs/reference"), "")
    assert found == "[Accuracy](../benchmarks/accuracy.md)"


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_nothing_of_other_servers(tmp_path: Path) -> None:
    config = load_config(str(PROJECT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    pages = {
        page.relative_to(tmp_path / "site").as_posix(): page.read_text() for page in tmp_path.rglob("*.html")
    }
    assert "unreleased" in pages["changelog.html"].lower()
    assert "read_cloud" in pages["reference/api/pointcloud.formats.html"]
    loaded = [
        url
        for text in pages.values()
        for url in re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"(http[^\"]+)", text)
    ]
    assert not loaded

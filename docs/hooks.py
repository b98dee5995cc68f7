"""MkDocs hooks: what the site needs and the pages in the repository do not.

- `nav: - API: reference/api` becomes the list of the generated pages there.
- A line `<!-- include: CHANGELOG.md -->` becomes the content of that file of the project.
- A link to a file outside `docs/` becomes its path as code, since the site holds no such file; with `repo_url` in
  mkdocs.yml it becomes a link to the file in the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

PROJECT = Path(__file__).parent.parent
_INCLUDE = re.compile(r"^<!-- include: (\S+) -->$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Put the generated API pages into the navigation."""
    config.nav = _expanded(config.nav)
    return config


def _expanded(nav: Any) -> Any:
    if isinstance(nav, list):
        return [_expanded(item) for item in nav]
    if isinstance(nav, dict):
        return {title: _expanded(item) for title, item in nav.items()}
    folder = PROJECT / "docs" / nav
    if not folder.is_dir():
        return nav
    return [{page.stem: f"{nav}/{page.name}"} for page in sorted(folder.glob("*.md"))]


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Include files of the project, and rewrite links that leave `docs/`."""
    here = PurePosixPath("docs", page.file.src_uri).parent
    repository = (config.repo_url or "").rstrip("/")

    def include(found: re.Match[str]) -> str:
        path = PurePosixPath(found[1])
        return links_for_site((PROJECT / path).read_text(), path.parent, here, repository)

    return links_for_site(_INCLUDE.sub(include, markdown), here, here, repository)


def links_for_site(markdown: str, source: PurePosixPath, target: PurePosixPath, repository: str) -> str:
    """Links of a text of the folder `source`, made right for a page of the folder `target`, both below the project."""

    def rewrite(found: re.Match[str]) -> str:
        text, path, anchor = found[1], found[2], found[3] or ""
        meant = os.path.normpath(source / path)
        if not (PROJECT / meant).exists():
            return found[0]  # a page that there is not, or code in brackets: mkdocs says so
        if meant.startswith("docs" + os.sep):
            return f"[{text}]({os.path.relpath(meant, target)}{anchor})"
        if repository:
            return f"[{text}]({repository}/blob/main/{meant}{anchor})"
        return f"`{meant}`" if text.strip("`") in (meant, Path(meant).name) else f"{text} (`{meant}`)"

    return re.sub(_LINK, rewrite, markdown)

"""The frame that every page stands in (`frame.html`), and the templates that fill it."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from tasks.report.figures import grouped, per_cent


def render_page(template: str, **values: Any) -> str:
    """A page as HTML text: a template of this folder, its frame and the styles in it."""
    here = files("tasks.report")
    loader = jinja2.FunctionLoader(lambda name: here.joinpath(name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(grouped=grouped, per_cent=per_cent)
    styles = Markup(here.joinpath("page.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(styles=styles, **values)

"""HTML from the Jinja2 templates in `templates/`: every value is escaped, and a name that is missing is an error."""

from __future__ import annotations

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lua_demo.paths import TEMPLATES

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(template: str, **values: object) -> Markup:
    """The template of that file name with `values`. Markup among the values is inserted as it is, text is escaped."""
    return Markup(_ENVIRONMENT.get_template(template).render(values))

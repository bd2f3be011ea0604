"""Renders HTML pages from templates, each in one file without scripts or external files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

_TEMPLATES: Final = Path(__file__).parent / "templates"


def render(
    name: str,
    values: Mapping[str, object],
    filters: Mapping[str, Callable[[Any], str]],
    more: Sequence[Path] = (),
) -> str:
    """Render the template *name*, of this package or of the folders *more*, with *values*.

    Values are escaped, except `Markup` of markupsafe; a missing value is an error.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([_TEMPLATES, *more]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(name).render(values)

"""Pages of one file that load nothing and run nothing: their templates, and the rules of those."""

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
    """Return the template *name*, of this package or of the folders *more*, with its *values*.

    Values are escaped, but for markupsafe's; a name that has none is an error.
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

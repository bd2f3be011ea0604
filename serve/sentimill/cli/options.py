"""The options that several commands share, each declared once, alone or in groups.

`Input`, `Output` and the others declare an option under that heading of `--help`. A dataclass whose
fields are options is a group: `with_groups` gives a command that takes a group one option for each
field. A boolean option without an explicit flag gets the flag `--name`, and no `--no-name`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Final, get_args, get_type_hints

import typer

from sentimill.atomic_write import is_device, place_of
from sentimill.engine.base import EngineName, Precision, Provider
from sentimill.errors import UsageError
from sentimill.types import NEIGHBOURS

Input: Final = partial(typer.Option, rich_help_panel="Input")
Output: Final = partial(typer.Option, rich_help_panel="Output")
Model: Final = partial(typer.Option, rich_help_panel="Model")
Performance: Final = partial(typer.Option, rich_help_panel="Performance")
Secured: Final = partial(typer.Option, rich_help_panel="Secured server")
Advanced: Final = partial(typer.Option, rich_help_panel="Advanced")
InputArgument: Final = partial(typer.Argument, rich_help_panel="Input")
OutputArgument: Final = partial(typer.Argument, rich_help_panel="Output")

BundleOption = Annotated[
    Path | None,
    Model(
        "--bundle",
        envvar="SENTIMILL_BUNDLE",
        help="Model folder that `train` wrote.",
        show_default="the model that comes with Sentimill",
    ),
]
ServerOption = Annotated[str | None, Model(help="Ask the server at HOST:PORT instead.")]
EngineOption = Annotated[EngineName, Performance(help="auto takes the fastest installed one.")]
BatchTokensOption = Annotated[
    int | None,
    Performance(
        min=1,
        help="Padded tokens (rows x longest) in one engine call.",
        show_default="512 on a CPU, 32,768 on a GPU",
    ),
]
OverwriteOption = Annotated[bool, Output("--overwrite", help="Replace the output.")]
SeedOption = Annotated[int, Advanced(min=0, help="Seed of every random choice.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOptions:
    """How a bundle is run."""

    precision: Annotated[
        Precision, Performance(help="auto takes the fastest that bundle and machine support.")
    ] = "auto"
    provider: Annotated[Provider, Performance(help="auto takes a CUDA GPU if it can.")] = "auto"
    threads: Annotated[
        int | None, Performance(min=1, help="CPU threads of the engine.", show_default="all cores")
    ] = None
    no_detect_language: Annotated[
        bool, Model(help="Do not abstain on texts in a language that the model was not made for.")
    ] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions:
    """Where the texts of a table are, and how a delimited file is written."""

    text_column: Annotated[
        list[str] | None,
        Input(help="Column of the text; repeat it to join several.", show_default="text"),
    ] = None
    delimiter: Annotated[
        str | None, Input(help="Separator of a CSV file.", show_default="by the header line")
    ] = None
    quote: Annotated[str, Input(help="Quote character of a CSV file, or none.")] = '"'
    escape: Annotated[
        str | None, Input(help="Character that escapes a quote.", show_default="none")
    ] = None
    encoding: Annotated[str, Input(help="Encoding of CSV, such as latin-1.")] = "utf-8"

    def __post_init__(self) -> None:
        """Raise UsageError for a delimiter, quote or escape character that cannot work."""
        delimiter, quote, escape = self.delimiter, self.quote, self.escape
        mark = self.quote_mark or ""
        if delimiter is not None and not _is_mark(delimiter, '"\r\n\0'):
            why = f"--delimiter {delimiter!r} is not one ASCII character that can separate fields"
            why += r" (bash writes a tab as $'\t')"
            raise UsageError(why, reason="BAD_DELIMITER")
        if quote != "none" and not _is_mark(quote, f"{delimiter or ''}\r\n\0"):
            why = f"--quote {quote!r} is neither one ASCII character nor the word none"
            raise UsageError(why, reason="BAD_QUOTE")
        if escape is not None and not _is_mark(escape, f"{delimiter or ''}{mark}\r\n\0"):
            why = f"--escape {escape!r} is not one ASCII character apart from delimiter and quote"
            raise UsageError(why, reason="BAD_ESCAPE")

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that together are the text."""
        return tuple(self.text_column or ("text",))

    @property
    def quote_mark(self) -> str | None:
        """The quote character; None if there is none."""
        return None if self.quote == "none" else self.quote

    def flags(self) -> list[str]:
        """Return the given options as arguments for another command that reads the same table."""
        words = []
        for option in fields(self):
            value = getattr(self, option.name)
            if value != option.default:
                for one in value if isinstance(value, list) else [value]:
                    words += [f"--{option.name.replace('_', '-')}", one]
        return words


@dataclass(frozen=True, slots=True, kw_only=True)
class NeighbourOptions:
    """Which labelled reviews an answer shows."""

    index: Annotated[Path | None, Output(help="Show the nearest reviews of this index.")] = None
    neighbours: Annotated[
        int | None,
        Output(
            min=0,
            max=32,
            help="How many reviews to show, of --index or of your index on the server.",
            show_default="5 with --index",
        ),
    ] = None

    def count(self, server: str | None) -> int:
        """Return how many reviews to show. Raises UsageError where nobody has an index."""
        if server is not None and self.index is not None:
            why = "--index needs a bundle here, not --server: ask the server with --neighbours"
            raise UsageError(why, reason="NO_MODEL")
        if server is None and self.index is None and self.neighbours:
            why = "--neighbours needs the --index of the reviews, or a --server that has one"
            raise UsageError(why, reason="NO_INDEX")
        usual = 0 if self.index is None else NEIGHBOURS
        return usual if self.neighbours is None else self.neighbours


def _is_mark(text: str, refused: str) -> bool:
    return len(text) == 1 and text.isascii() and text not in refused


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return *command* with an option for each field of the dataclasses among its parameters."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    parameters = []
    for each in inspect.signature(command).parameters.values():
        if each.name in groups:
            kinds = get_type_hints(groups[each.name], include_extras=True)
            options = [
                (one.name, kinds[one.name], each.empty if one.default is MISSING else one.default)
                for one in fields(groups[each.name])
            ]
        else:
            options = [(each.name, hints[each.name], each.default)]
        parameters += [
            inspect.Parameter(
                name, each.KEYWORD_ONLY, annotation=_as_flag(name, kind), default=default
            )
            for name, kind, default in options
        ]

    @wraps(command)
    def run(**given: object) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{one.name: given.pop(one.name) for one in fields(kind)})
        command(**given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # read by inspect
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def _as_flag(name: str, kind: Any) -> Any:
    """Return *kind* with an explicit flag: for a boolean option Typer would add `--no-` too."""
    if get_args(kind)[:1] != (bool,) or kind.__metadata__[0].default is not ...:  # has a flag
        return kind
    option = copy(kind.__metadata__[0])
    option.param_decls = (f"--{name.replace('_', '-')}",)
    return Annotated[bool, option]


def check_outputs(outputs: Iterable[Path | None], inputs: Iterable[str | Path | None]) -> None:
    """Raise UsageError for an output that is an input, another output, or no file but a device."""
    taken = {place_of(Path(one)): "an input" for one in inputs if one}
    for path in outputs:
        if path is None:
            continue
        if is_device(path):
            why = f"{path} is a device or a pipe, which a file would replace: name a file"
            raise UsageError(why, reason="OUTPUT_IS_DEVICE")
        place = place_of(path)
        if place in taken:
            why = f"{path} is {taken[place]} too, and would be lost: choose another output"
            raise UsageError(why, reason="OUTPUT_IS_INPUT")
        taken[place] = "another output"


def one_model(
    context: typer.Context, bundle: Path | None, server: str | None
) -> tuple[Path | None, str | None]:
    """Return the bundle and the server to use: one of them, or neither where none is named.

    An option on the command line takes precedence over one from an environment variable. Where
    both are from variables, the server does.

    Raises:
        UsageError: NO_MODEL, both are on the command line.
    """
    if bundle is None or server is None:
        return bundle, server
    if _from_variable(context, "bundle"):
        return None, server
    if _from_variable(context, "server"):
        return bundle, None
    why = "name one model: either --bundle FOLDER or --server HOST:PORT"
    raise UsageError(why, reason="NO_MODEL")


def _from_variable(context: typer.Context, option: str) -> bool:
    origin = context.get_parameter_source(option)
    return origin is not None and origin.name == "ENVIRONMENT"

"""The program `sentimill`. Data goes to stdout, everything else to stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Final, Literal

import typer

from sentimill.cli.bundle import inspect, verify
from sentimill.cli.classify import classify
from sentimill.cli.command import HEADINGS, Command, Group, ShortGroup
from sentimill.cli.doctor import doctor
from sentimill.cli.score import score
from sentimill.cli.serve import serve
from sentimill.cli.terminal import console
from sentimill.cli.token import token
from sentimill.errors import SentimillError, UsageError, outcome
from sentimill.observability.json_logging import as_json, set_up

log = logging.getLogger(__name__)

app = typer.Typer(
    cls=Group,
    help="Label English reviews as negative, neutral or positive, fast and on your own machine.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "SENTIMILL", "help_option_names": ["-h", "--help"]},
)
bundle_app = typer.Typer(
    cls=Group, help="Look at a model folder, or check it.", no_args_is_help=True
)

_USE, _MAKE, _WATCH, _SET_UP = HEADINGS
_OWN: Final = ("classify", "score", "serve", "doctor", "token", "bundle")
_PANELS: Final = {
    **dict.fromkeys(("label", "curate", "train", "evaluate", "export", "trim", "index"), _MAKE),
    **dict.fromkeys(("cost", "drift", "sample"), _WATCH),
}
"""The headings of the commands that the training package adds, in the order of the help."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the program on *args*, by default those of the process, and exit.

    Each SentimillError or OSError becomes one line on stderr and its documented exit code.
    """
    given = sys.argv[1:] if args is None else args
    if not given or given[0] not in _OWN:  # the commands of training take a while to import
        found = {entry.name: entry for entry in entry_points(group="sentimill.commands")}
        for name in sorted(found, key=[*_PANELS, *found].index):
            add_command(app, found[name])
    try:
        app(args, prog_name="sentimill")
    except (SentimillError, OSError) as error:
        if as_json():
            log.error("%s", error)
        else:
            console.print("error:", str(error), style="bold red", markup=False)
        raise SystemExit(outcome(error).exit) from error


def add_command(group: typer.Typer, entry: EntryPoint) -> None:
    """Add a command of another package. If it cannot be imported, calling it says why."""
    panel = _PANELS.get(entry.name)
    try:
        loaded = entry.load()
        if isinstance(loaded, typer.Typer):
            for one in loaded.registered_commands:
                one.cls = Command
            group.add_typer(loaded, name=entry.name, cls=ShortGroup, rich_help_panel=panel)
        else:
            group.command(entry.name, cls=Command, rich_help_panel=panel)(loaded)
    except ImportError as error:
        why = f"`sentimill {entry.name}` is not available here: {error}"

        def missing() -> None:
            raise UsageError(f"{why}: pip install 'sentimill[cpu,train]'", reason="EXTRA_MISSING")

        # Accept any options: the answer is the same.
        loose = {"ignore_unknown_options": True, "allow_extra_args": True}
        group.command(entry.name, help=why, context_settings=loose, rich_help_panel=panel)(missing)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sentimill {version('sentimill')}")
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    *,
    log_level: Annotated[
        str, typer.Option(help="Log debug, info, warning or error to stderr.")
    ] = "info",
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="json logs one object per line.")
    ] = "text",
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Set up logging; nothing else does."""
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        why = f"unknown --log-level {log_level!r}: use debug, info, warning or error"
        raise UsageError(why, reason="UNKNOWN_LOG_LEVEL")
    set_up(level, log_format)
    context.obj = partial(set_up, level, log_format)


for _command in (classify, score, serve):
    app.command(cls=Command, rich_help_panel=_USE)(_command)
app.command(cls=Command, rich_help_panel=_SET_UP)(doctor)
app.command(cls=Command, rich_help_panel=_SET_UP)(token)
bundle_app.command(cls=Command)(inspect)
bundle_app.command(cls=Command)(verify)
app.add_typer(bundle_app, name="bundle", rich_help_panel=_SET_UP)

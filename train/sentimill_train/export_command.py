"""`sentimill export`. What it needs is imported when it runs, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentimill.errors import BundleError, UsageError

__all__ = ["export"]


def export(
    bundle: Annotated[
        Path, typer.Option(envvar="SENTIMILL_BUNDLE", help="folder written by train")
    ],
    out: Annotated[Path, typer.Option(help="folder to write the bundle with int8 to")],
    on: Annotated[
        list[str],
        typer.Option(
            metavar="FILE...",
            help="labelled reviews that were not learnt, 2,000 or more in all, for the gate",
        ),
    ],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    *,
    text_column: Annotated[str, typer.Option(help="column that holds the text")] = "text",
    label_column: Annotated[
        str | None, typer.Option(help="column that holds the label", show_default="label, or stars")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="replace a bundle at --out")] = False,
) -> None:
    """Add an int8 graph to a bundle, when it answers as fp32 does; else say by how much it fails.

    A bundle without int8 is written all the same, with the outcome in its card, and the exit code
    is 4.
    """
    try:
        from sentimill_train.precisions import Export
        from sentimill_train.records import Columns
    except ImportError as error:
        raise UsageError(
            f"exporting needs parts that are not installed ({error.name}):"
            " pip install 'sentimill[cpu,train]'",
            reason="EXTRA_MISSING",
        ) from error
    made, check = Export(
        bundle=bundle,
        out=out,
        on=(*on, *(more or ())),
        columns=Columns(text=text_column, label=label_column),
        overwrite=overwrite,
    ).run()
    if not check.passed:
        raise BundleError(
            f"{check.sentence()} {made.path} was written without it", reason="PRECISION_REFUSED"
        )
    typer.echo(f"{check.sentence()} {made.path} has it.", err=True)

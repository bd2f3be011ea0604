"""`sentimill export`. What it needs is imported when it runs, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentimill.errors import BundleError
from sentimill_train.extras import needed_for

__all__ = ["export"]


def export(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="folder written by train")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="folder to write the new bundle to")],
    on: Annotated[
        list[str],
        typer.Option(
            metavar="FILE...",
            help="labelled reviews that were not learnt, 2,000 or more in all, for the gate",
        ),
    ],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    *,
    compact: Annotated[
        bool,
        typer.Option(
            "--compact", help="for shipping: int8 alone, and the weights to train on in fp16"
        ),
    ] = False,
    float_attention: Annotated[
        bool,
        typer.Option(
            "--float-attention",
            help="queries, keys and values in float32, where int8 misses its gate: less fast",
        ),
    ] = False,
    text_column: Annotated[str, typer.Option(help="column that holds the text")] = "text",
    label_column: Annotated[
        str | None, typer.Option(help="column that holds the label", show_default="label, or stars")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="replace a bundle at OUT")] = False,
) -> None:
    """Add an int8 graph to a bundle, when it answers as fp32 does; else say by how much it fails.

    Then the bundle is written without int8, with the outcome in its card, and the exit code is 4.
    With --compact nothing is written then, for int8 is all that such a bundle has.
    """
    with needed_for("exporting"):
        from sentimill_train.precisions import Export
        from sentimill_train.records import Columns
    made = Export(
        bundle=bundle,
        out=out,
        on=(*on, *(more or ())),
        columns=Columns(text=text_column, label=label_column),
        compact=compact,
        float_attention=float_attention,
        overwrite=overwrite,
    ).run(lambda stage: typer.echo(stage, err=True))
    for check in made.checks:
        if not check.passed:
            raise BundleError(
                f"{check.sentence()} {out} was written without it; try --float-attention",
                reason="PRECISION_REFUSED",
            )
        typer.echo(check.sentence(), err=True)
    size = sum(file.size_bytes for file in made.bundle.manifest.files.values())
    typer.echo(f"{out}: {size / 1e6:.1f} MB", err=True)

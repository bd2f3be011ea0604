"""`sentimill sample`. What it needs is imported when it runs, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from sentimill.bundle.reference import reference_bundle
from sentimill_train.optional_packages import check_installed

__all__ = ["sample"]

_NEEDS: Final = ("datasets", "torch")


def sample(
    recent: Annotated[str, typer.Argument(metavar="FILE", help="texts: csv, jsonl or parquet")],
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            envvar="SENTIMILL_BUNDLE",
            help="bundle that answers today; several disagree",
            show_default="the reference student",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="rows to label, as JSON lines", show_default="FILE.to-label.jsonl beside it"
        ),
    ] = None,
    budget: Annotated[int, typer.Option(min=1, help="how many rows")] = 500,
    text_column: Annotated[str, typer.Option(help="column that holds the text")] = "text",
    exclude: Annotated[
        list[str] | None, typer.Option(help="file whose texts have labels already; may be repeated")
    ] = None,
    most: Annotated[int, typer.Option(min=1, help="rows looked at, drawn by chance")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="of every random choice")] = 0,
) -> None:
    """Pick what to label next: texts that models are unsure or at odds about, no two alike."""
    check_installed("sampling", *_NEEDS)
    from collections import Counter

    from rich.console import Console

    from sentimill_train.monitoring.sampling import SampleJob, load_models, pick_rows

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    out = out or Path(recent).with_suffix(".to-label.jsonl")
    job = SampleJob(
        source=recent,
        out=out,
        budget=budget,
        text_column=text_column,
        most=most,
        exclude=tuple(exclude or ()),
        seed=seed,
    )
    models = load_models(
        bundle or [reference_bundle()], lambda said: console.print(said, markup=False)
    )
    found = pick_rows(models, job)
    looked = f"{found.looked_at:,} of {found.rows_in_file:,} rows looked at"
    console.print(f"{looked}, {found.excluded:,} with a label, {found.unreadable:,} unreadable")
    for reason, count in Counter(choice.reason for choice in found.choices).most_common():
        console.print(f"{count:>10,}  {reason}")
    few = "" if len(found.choices) == budget else "; the rest repeats them"
    console.print(f"{len(found.choices):>10,}  to label{few}", markup=False)
    typer.echo(out)

"""`sentimill sample`. It imports its packages when it runs, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentimill.bundle.reference import reference_bundle
from sentimill.cli import options as opt
from sentimill.cli.terminal import say
from sentimill_train.cli.table_options import columns_of


@opt.with_groups
def sample(
    recent: Annotated[str, opt.InputArgument(metavar="FILE", help="Recent texts, as a table.")],
    *,
    table: opt.TableOptions,
    exclude: Annotated[
        list[str] | None,
        opt.Input(metavar="FILE", help="File whose texts have labels already; may be repeated."),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        opt.Model(
            envvar="SENTIMILL_BUNDLE",
            help="Bundle that classifies the texts; several are averaged.",
            show_default="the reference student",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        opt.Output(help="Rows to label, as JSON lines.", show_default="FILE.to-label.jsonl"),
    ] = None,
    budget: Annotated[int, opt.Output(min=1, help="Number of rows to pick.")] = 500,
    most: Annotated[int, opt.Advanced(min=1, help="Rows drawn at random to choose from.")] = 20_000,
    seed: opt.SeedOption = 0,
) -> None:
    """Pick texts to label next: those that the model is least sure of, no two similar.

    In our measurement such labels helped no more than those of random rows; see docs/labelling.md.
    """
    from sentimill_train.monitoring.sampling import SampleJob, load_models, pick_rows

    out = out or Path(recent).with_suffix(".to-label.jsonl")
    job = SampleJob(
        source=recent,
        out=out,
        budget=budget,
        columns=columns_of(table),
        most=most,
        exclude=tuple(exclude or ()),
        seed=seed,
    )
    found = pick_rows(load_models(bundle or [reference_bundle()]), job)
    looked = f"{found.looked_at:,} of {found.rows_in_file:,} rows looked at"
    say(f"{looked}, {found.excluded:,} with a label, {found.unreadable:,} unreadable")
    few = "" if found.picked == budget else "; the others are similar to these"
    say(f"{found.picked:,} rows to label{few}")
    typer.echo(out)

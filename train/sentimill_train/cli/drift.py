"""`sentimill drift`. It imports its packages when it runs, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sentimill.cli import options as opt
from sentimill_train.cli.table_options import columns_of
from sentimill_train.optional_packages import check_installed

if TYPE_CHECKING:
    from rich.table import Table

    from sentimill_train.monitoring.drift import Drift

MOVED: Final = 5
"""Exit code if something has moved; the codes of errors are lower."""


@opt.with_groups
def drift(
    *,
    on: Annotated[str, opt.Input(metavar="FILE", help="Recent texts: CSV, JSONL or Parquet.")],
    against: Annotated[
        str | None,
        opt.Input(
            metavar="FILE",
            help="Earlier texts to compare with, such as those that the bundle was evaluated on.",
            show_default="only the label mix is tested",
        ),
    ] = None,
    table: opt.TableOptions,
    reference: Annotated[
        Path | None,
        opt.Model(
            envvar="SENTIMILL_BUNDLE",
            help="Bundle that classifies such texts.",
            show_default="the model that comes with Sentimill",
        ),
    ] = None,
    json: Annotated[
        Path | None, opt.Output(dir_okay=False, help="Write every figure here.")
    ] = None,
    most: Annotated[int, opt.Advanced(min=50, help="Rows drawn at random from each file.")] = 1000,
    alpha: Annotated[
        float, opt.Advanced(min=1e-6, max=0.5, help="Probability of a false alarm in any test.")
    ] = 0.01,
    seed: opt.SeedOption = 0,
) -> None:
    """Test whether recent texts still resemble those that a bundle was evaluated on.

    The exit code is 0 if nothing has moved, and 5 if something has.
    """
    check_installed("looking for drift", "scipy", "sklearn", "torch")
    import msgspec
    from rich.console import Console

    from sentimill.atomic_write import write_atomically
    from sentimill.bundle.reference import reference_bundle
    from sentimill.classifier import Classifier
    from sentimill_train.monitoring.drift import DriftJob, find_drift

    opt.check_outputs([json], [on, against])
    columns = columns_of(table)
    job = DriftJob(on=on, against=against, columns=columns, most=most, alpha=alpha, seed=seed)
    found = find_drift(Classifier.load(reference or reference_bundle()), job)
    if json is not None:
        write_atomically(json, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    out = Console(highlight=False)
    out.print(_shifts(found))
    out.print(_sentence(found), markup=False)
    if found.moved:
        raise typer.Exit(MOVED)


def _shifts(found: Drift) -> Table:
    from rich.table import Table

    shown = Table(title=f"{found.recent.drawn} recent texts, {found.bundle}", title_justify="left")
    shown.add_column("what")
    for name in ("earlier", "recent", "distance", "limit", "p"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("verdict")
    for shift in found.shifts:
        means = ["" if mean is None else f"{mean:.3g}" for mean in (shift.earlier, shift.recent)]
        tested = shift.value is not None and shift.p is not None
        shown.add_row(
            shift.name,
            *means,
            f"{shift.statistic} {shift.value:.3f}" if tested else "",
            f"{shift.limit:g}",
            f"{shift.p:.2g}" if tested else "",
            ("moved" if shift.moved else "as before") if tested else "not tested",
        )
    return shown


def _sentence(found: Drift) -> str:
    moved = [shift.name for shift in found.shifts if shift.moved]
    idle = [shift.name for shift in found.shifts if shift.value is None]
    said = f"Moved: {', '.join(moved)}." if moved else "Nothing that was tested has moved."
    if idle:
        remedy = "--against FILE" if found.earlier is None else "a bundle with its weights"
        said += f" Not tested: {', '.join(idle)}, which needs {remedy}."
    return said

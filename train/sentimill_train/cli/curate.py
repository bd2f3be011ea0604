"""The command `sentimill curate`: its options and its progress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sentimill.errors import UsageError

__all__ = ["curate"]


def curate(
    labelled: Annotated[str, typer.Argument(help="labelled rows, best as JSON lines of `label`")],
    out: Annotated[Path, typer.Argument(help="training rows to write, JSON lines")],
    report: Annotated[Path | None, typer.Option(help="HTML report of what went and why")] = None,
    holdout: Annotated[
        list[str] | None,
        typer.Option(help="evaluation file whose texts must not be trained on; may be repeated"),
    ] = None,
    keep: Annotated[int | None, typer.Option(min=1, help="rows to keep, best and various")] = None,
    labels: Annotated[str, typer.Option(help="the closed set")] = "negative,neutral,positive",
    languages: Annotated[str, typer.Option(help="codes to keep, or `any`")] = "en",
    min_words: Annotated[int, typer.Option(min=0, help="words a text must have")] = 2,
    near: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="similarity of near-duplicates; 1 is off")
    ] = 0.8,
    min_confidence: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="the teacher's least largest share")
    ] = 0.4,
    max_disagreement: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="of several teachers, 0 to 1")
    ] = 0.4,
    max_noise: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="largest share to drop as wrongly labelled")
    ] = 0.05,
    class_ratio: Annotated[
        float | None, typer.Option(min=1.0, help="largest class over smallest")
    ] = 5.0,
    domain_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="largest share of one domain; 1 is off")
    ] = 0.5,
    seed: Annotated[int, typer.Option(help="decides what chance decides")] = 0,
    scratch: Annotated[
        Path | None, typer.Option(help="folder for temporary files, as large as the input")
    ] = None,
    text_column: Annotated[str, typer.Option(help="column of the texts")] = "text",
    label_column: Annotated[str | None, typer.Option(help="column of the labels")] = None,
) -> None:
    """Turn a labelled set into a training set worth having, and say what was dropped and why."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from sentimill_train.curation.filters import Filters
    from sentimill_train.curation.pipeline import CurateJob, curate_rows
    from sentimill_train.curation.report import write_report
    from sentimill_train.data.schema import Columns

    names = tuple(name.strip() for name in labels.split(",") if name.strip())
    if len(names) < 2:
        raise UsageError(f"--labels {labels!r} names fewer than two", reason="BAD_LABELS")
    wanted = [] if languages == "any" else languages.split(",")
    job = CurateJob(
        source=labelled,
        out=out,
        holdout=tuple(holdout or ()),
        filters=Filters(
            labels=names,
            languages=frozenset(code.strip() for code in wanted if code.strip()),
            min_words=min_words,
        ),
        columns=Columns(text=text_column, label=label_column),
        near=near if near < 1 else None,
        min_confidence=min_confidence or None,
        max_disagreement=max_disagreement if max_disagreement < 1 else None,
        max_noise=max_noise or None,
        class_ratio=class_ratio,
        domain_share=domain_share if domain_share < 1 else None,
        keep=keep,
        seed=seed,
        scratch=scratch,
    )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, object] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total or None)
            bar.update(tasks[step], completed=done)  # type: ignore[arg-type] # rich's TaskID

        found = curate_rows(job, show)
    if report is not None:
        write_report(report, job, found)
    for reason, count in found.drops.items():
        console.print(f"{count:>10,}  {reason}", highlight=False)
    console.print(f"{found.kept:>10,}  kept, in {out}", highlight=False, markup=False)

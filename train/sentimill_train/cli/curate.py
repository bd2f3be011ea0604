"""The command `sentimill curate`: its options and its progress."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sentimill.cli import options as opt
from sentimill.cli.terminal import console, say
from sentimill.errors import UsageError
from sentimill_train.cli.table_options import (
    DEFAULT_LABELS,
    LabelColumn,
    LabelsOption,
    columns_of,
    say_next,
    split_names,
)

if TYPE_CHECKING:
    from sentimill_train.curation.label_errors import Embed


_Filter: Final = partial(typer.Option, rich_help_panel="What is dropped")


@opt.with_groups
def curate(
    labelled: Annotated[str, opt.InputArgument(help="Labelled reviews, such as `label` writes.")],
    out: Annotated[
        Path, opt.OutputArgument(dir_okay=False, help="JSON lines to write, for `train`.")
    ],
    *,
    table: opt.TableOptions,
    label_column: LabelColumn = None,
    labels: LabelsOption = DEFAULT_LABELS,
    report: Annotated[
        Path | None, opt.Output(dir_okay=False, help="HTML report of what was dropped and why.")
    ] = None,
    holdout: Annotated[
        list[str] | None,
        _Filter(
            metavar="FILE",
            help="Evaluation file; its texts are dropped from train. May be repeated.",
        ),
    ] = None,
    near: Annotated[
        float, _Filter(min=0.0, max=1.0, help="Least similarity of near-duplicates; 1 keeps them.")
    ] = 0.8,
    no_label_errors: Annotated[
        bool, _Filter(help="Do not look for errors in labels that people gave.")
    ] = False,
    drop_label_errors: Annotated[
        bool, _Filter(help="Drop the labels that are probably wrong.")
    ] = False,
    class_ratio: Annotated[
        float | None,
        _Filter(min=1.0, help="Largest class divided by the smallest.", show_default="no limit"),
    ] = None,
    domain_share: Annotated[
        float | None,
        _Filter(min=0.01, max=1.0, help="Largest share of one domain.", show_default="no limit"),
    ] = None,
    keep: Annotated[
        int | None,
        _Filter(min=1, help="Rows of train to keep, a random sample.", show_default="all"),
    ] = None,
    bundle: Annotated[
        Path | None,
        opt.Model(
            envvar="SENTIMILL_BUNDLE",
            help="Bundle whose embeddings are used to find wrong labels.",
            show_default="the reference student",
        ),
    ] = None,
    seed: opt.SeedOption = 0,
    scratch: Annotated[
        Path | None, opt.Advanced(help="Folder for temporary files, as large as the input.")
    ] = None,
) -> None:
    """Remove leaks and repeats from the training rows of a labelled set, and report label errors.

    Only rows for train are filtered: rows for validation and test are written unchanged.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from sentimill_train.curation.pipeline import CurateJob, curate_rows
    from sentimill_train.curation.report import write_report

    written = [out, report]
    if report is not None and report.suffix != ".json":
        written.append(report.with_suffix(".json"))
    opt.check_outputs(written, [labelled, *(holdout or [])])
    names = split_names(labels)
    if len(names) < 2:
        raise UsageError(f"--labels {labels!r} names fewer than two", reason="BAD_LABELS")
    job = CurateJob(
        source=labelled,
        out=out,
        labels=names,
        holdout=tuple(holdout or ()),
        columns=columns_of(table, label_column),
        near=near if near < 1 else None,
        drop_label_errors=drop_label_errors,
        class_ratio=class_ratio,
        domain_share=domain_share,
        keep=keep,
        seed=seed,
        scratch=scratch,
    )
    # Label errors need embeddings, and so the packages that load the weights of a student.
    wanted = drop_label_errors or (not no_label_errors and find_spec("torch") is not None)
    embed = _embedder(bundle) if wanted else None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console) as bar:
        tasks: dict[str, object] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total or None)
            bar.update(tasks[step], completed=done)  # type: ignore[arg-type] # rich's TaskID

        found = curate_rows(job, embed, show)
    if report is not None:
        write_report(report, job, found)
    for reason, count in found.drops.items():
        say(f"{count:>10,}  {reason}")
    say(f"{found.kept:>10,}  of train kept, in {out}")
    say(f"{found.passed:>10,}  of validation and test written as they came")
    if found.label_errors:
        where = f"listed in {report}" if report else "--report lists them"
        say(f"{found.label_errors:>10,}  labels may be wrong, {where}")
    if not no_label_errors and embed is None:
        say("the search for label errors was skipped: it needs 'sentimill[cpu,train]'")
    for note in found.notes:
        say(f"            {note}")
    say_next(out, ["train", "--reviews", out, "--out", "bundles/mine"], labels)


def _embedder(bundle: Path | None) -> Embed:
    """Return a function for embeddings of *bundle*, which is loaded at the first call.

    Raises BundleError for a bundle without weights, which has no embeddings: at once if the user
    named it, else at the first call, because few rows need none.
    """
    from collections.abc import Sequence

    from sentimill.bundle.reader import WEIGHTS, open_bundle
    from sentimill.bundle.reference import reference_bundle
    from sentimill.classifier import Classifier
    from sentimill.errors import BundleError
    from sentimill_train.metrics.classification import Floats
    from sentimill_train.monitoring.observations import embeddings

    folder = bundle or reference_bundle()
    lack = BundleError(
        f"{folder} holds no {WEIGHTS}, which gives the embeddings: name another --bundle, or"
        " give --no-label-errors",
        reason="BUNDLE_NO_WEIGHTS",
    )
    if bundle is not None and not open_bundle(folder).has(WEIGHTS):
        raise lack

    def embed(texts: Sequence[str]) -> Floats:
        found = embeddings(Classifier.load(folder), texts)
        if found is None:
            raise lack
        return found

    return embed

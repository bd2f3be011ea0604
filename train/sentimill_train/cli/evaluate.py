"""`sentimill evaluate`. It imports its packages when it runs, so that `--help` stays quick."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sentimill.bundle.reference import reference_bundle
from sentimill.cli import options as opt
from sentimill.cli.terminal import say
from sentimill.engine.base import Precision
from sentimill_train.cli.table_options import LabelColumn, columns_of
from sentimill_train.optional_packages import check_installed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from sentimill.classifier import Classifier
    from sentimill_train.data.schema import Columns
    from sentimill_train.evaluation.labelled_set import Answered
    from sentimill_train.evaluation.result import Contender, Judgement


@opt.with_groups
def evaluate(
    on: Annotated[
        list[str],
        opt.Input(metavar="FILE...", help="Labelled reviews to evaluate on; each file is a set."),
    ],
    more: Annotated[list[str] | None, typer.Argument(hidden=True)] = None,
    *,
    table: opt.TableOptions,
    label_column: LabelColumn = None,
    part: Annotated[
        Literal["auto", "train", "validation", "test", "all"],
        opt.Input(help="Split to evaluate on; auto means test if the file has splits, else all."),
    ] = "auto",
    most_rows: Annotated[
        int | None, opt.Input(min=1, help="Most rows of a set, sampled.", show_default="all")
    ] = None,
    behaviour: Annotated[
        list[Path] | None,
        opt.Input(metavar="FILE", help="More behaviour cases, as .jsonl or .jsonl.gz."),
    ] = None,
    behaviour_cases: Annotated[
        int | None, opt.Input(min=1, help="Most cases of each test.", show_default="all")
    ] = None,
    bundle: opt.BundleOption = None,
    precision: Annotated[
        Precision, opt.Model(help="auto takes the fastest one in the bundle.")
    ] = "auto",
    against: Annotated[list[Path] | None, opt.Model(help="Another bundle to compare with.")] = None,
    baselines: Annotated[
        list[str] | None,
        opt.Model(
            metavar="FILE", help="Training file of the bundle, to fit simple models for comparison."
        ),
    ] = None,
    json: Annotated[
        Path | None, opt.Output(dir_okay=False, help="Write every figure here.")
    ] = None,
    report: Annotated[
        Path | None, opt.Output(dir_okay=False, help="Write one HTML file here.")
    ] = None,
    mistakes: Annotated[
        int, opt.Output(min=0, help="Wrong answers to show for each set in the report.")
    ] = 20,
    target_error: Annotated[
        float | None,
        opt.Output(min=0.0001, max=0.9999, help="Show the threshold that keeps this error."),
    ] = None,
    draws: Annotated[int, opt.Advanced(min=100, help="Bootstrap draws.")] = 1000,
    seed: opt.SeedOption = 0,
    base: Annotated[
        str | None,
        opt.Advanced(help="Encoder of the static baseline.", show_default="all-MiniLM-L6-v2"),
    ] = None,
) -> None:
    """Evaluate a model on labelled reviews and behaviour cases, and compare it with others."""
    check_installed("evaluating", "jinja2", "matplotlib", "scipy", "sklearn")
    import msgspec
    from rich.console import Console

    from sentimill.atomic_write import write_atomically
    from sentimill.classifier import Classifier
    from sentimill_train.evaluation.behaviour import OWN_SUITE, read_cases
    from sentimill_train.evaluation.evaluate import bundle_contender, judge_bundle
    from sentimill_train.evaluation.labelled_set import read_sample
    from sentimill_train.evaluation.report import render_report, worst_mistakes

    read: list[str | Path] = [*on, *(more or []), *(baselines or []), *(behaviour or [])]
    opt.check_outputs([json, report], read)
    columns = columns_of(table, label_column)
    classifier = Classifier.load(bundle or reference_bundle(), precision=precision)
    manifest = classifier.bundle.manifest
    others = [Classifier.load(other, precision=precision) for other in against or []]
    judged = [one.bundle.manifest for one in (classifier, *others)]
    # Everything is read before anything is computed, so that a bad file fails in a second.
    samples = [
        read_sample(
            source,
            manifest.labels,
            trained_on=[files for each in judged for files in each.trainings],
            part=part,
            most=most_rows,
            columns=columns,
        )
        for source in [*on, *(more or [])]
    ]
    ours = set(manifest.labels) & {"negative", "neutral", "positive"}
    suites = [*([OWN_SUITE] if ours else []), *(behaviour or [])]
    cases = [case for suite in suites for case in read_cases(suite, most=behaviour_cases)]
    contenders = [bundle_contender(other, manifest.labels) for other in others]
    if baselines:
        say("fitting the baselines")
        contenders += _baselines(classifier, baselines, columns, base)
    for one in samples:
        kind = "" if one.part == "all" else f"{one.part} "
        say(f"evaluating {one.name}: {len(one.examples)} {kind}rows")
    judgement, answered = judge_bundle(
        classifier, samples, cases=cases, contenders=contenders, draws=draws, seed=seed
    )
    notes = _thresholds(answered, target_error) if target_error is not None else []
    notes += [
        f"{one.name}: left out {one.unlabelled} rows without a label, and {one.failed} that cannot"
        " be classified, such as blank ones"
        for one in judgement.sets
        if one.unlabelled or one.failed
    ]
    if json is not None:
        text = msgspec.json.format(msgspec.json.encode(judgement), indent=2)
        write_atomically(json, text + b"\n")
    if report is not None:
        worst = [mistake for one in answered for mistake in worst_mistakes(one, mistakes)]
        page = render_report(judgement, manifest, mistakes=worst, notes=notes)
        write_atomically(report, page.encode("utf-8", "replace"))
    Console(highlight=False).print(_summary(judgement))
    for note in [*(rival.sentence() for rival in judgement.rivals), *notes]:
        say(note)


def _baselines(
    classifier: Classifier, sources: list[str], columns: Columns, base: str | None
) -> list[Contender]:
    """Fit the baselines on the rows of *sources* that training used."""
    from sentimill.text.tokenizer import TextEncoder
    from sentimill_train.data.examples import read_examples
    from sentimill_train.data.splits import part
    from sentimill_train.evaluation.baselines import baseline_contenders
    from sentimill_train.model.pretrained import find_pretrained

    manifest = classifier.bundle.manifest
    rows = [
        example
        for source in sources
        for example in read_examples(source, columns=columns, labels=manifest.labels)
    ]
    # All files are split together, as in training, so that a text in two files is in one split.
    parted = part(rows, manifest.labels, columns=columns)
    found = find_pretrained(base)
    encoder = TextEncoder(
        found.tokenizer_json(),
        max_tokens=manifest.max_tokens,
        truncation="head" if manifest.truncation == "head" else "head-tail",
    )
    return baseline_contenders(
        parted.train,
        parted.validation,
        manifest.labels,
        encoder=encoder,
        weights=found.folder / "model.safetensors",
    )


def _thresholds(answered: Sequence[Answered], target_error: float) -> list[str]:
    from sentimill_train.calibration.abstention import choose_threshold

    return [
        f"{one.sample.name}: "
        + choose_threshold(
            one.answers.confidence, one.answers.correct, target_error=target_error
        ).sentence()
        for one in answered
    ]


def _summary(judgement: Judgement) -> Table:
    """Return the headline as a table: a line for each set, then one for each behaviour suite."""
    from rich.table import Table

    shown_table = Table(
        title=f"{judgement.bundle.name} {judgement.bundle.version}", title_justify="left"
    )
    shown_table.add_column("set", overflow="fold")
    for name in ("rows", "accuracy", "macro-F1", "two-class", "ECE"):
        shown_table.add_column(name, justify="right", no_wrap=True)
    for result in judgement.sets:
        shown = [f"{result.rows:,}"]
        for key in ("accuracy", "macro_f1", "two_class_accuracy"):
            figure = result.figures.get(key)
            half = (figure.high - figure.low) / 2 if figure else 0.0
            shown.append(f"{figure.value:.1%} ± {half:.1%}" if figure else "")
        shown_table.add_row(result.name, *shown, f"{result.figures['ece'].value:.3f}")
    for suite in dict.fromkeys(result.suite for result in judgement.behaviour):
        tests = [result for result in judgement.behaviour if result.suite == suite]
        failed, cases = sum(t.failures for t in tests), sum(t.rate.rows for t in tests)
        passed = f"{1 - failed / cases:.1%} pass" if cases else "none applies"
        shown_table.add_row(f"behaviour: {suite}", f"{cases:,}", passed)
    return shown_table

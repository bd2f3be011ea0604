"""The command `sentimill label`: its options, the plan, and the progress line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from sentimill.cli import options as opt
from sentimill.cli.terminal import console, say
from sentimill.errors import SomeRowsFailed, UsageError
from sentimill_train.cli.table_options import (
    DEFAULT_LABELS,
    LabelColumn,
    LabelsOption,
    columns_of,
    say_next,
    split_names,
)
from sentimill_train.data.schema import number_of

if TYPE_CHECKING:
    from sentimill_train.labelling.job import LabelJob
    from sentimill_train.labelling.providers.teacher import Teacher
    from sentimill_train.labelling.requests.batch_runner import BatchLimits
    from sentimill_train.labelling.token_prices import Quote

_Teacher: Final = partial(typer.Option, rich_help_panel="Teacher")
_Budget: Final = partial(typer.Option, rich_help_panel="Budget")


@opt.with_groups
def label(
    reviews: Annotated[
        str | None,
        opt.InputArgument(
            help="CSV, TSV, JSONL, Parquet, `starter`, `hard-kinds` or hub:owner/name."
        ),
    ] = None,
    out: Annotated[
        Path | None, opt.OutputArgument(dir_okay=False, help="Labelled JSON lines to write.")
    ] = None,
    *,
    table: opt.TableOptions,
    label_column: LabelColumn = None,
    labels: LabelsOption = DEFAULT_LABELS,
    relabel: Annotated[bool, opt.Input(help="Also ask about rows that have a label.")] = False,
    redact: Annotated[bool, opt.Input(help="Mask e-mail, web, phone and card numbers.")] = False,
    max_words: Annotated[int, opt.Input(min=8, help="Cut the middle of longer texts.")] = 400,
    teacher: Annotated[
        list[str] | None,
        _Teacher(help="openai:MODEL, openai:MODEL@URL or anthropic:MODEL; may be repeated."),
    ] = None,
    base_url: Annotated[str | None, _Teacher(help="Endpoint of teachers that name none.")] = None,
    soft: Annotated[
        Literal["auto", "logprobs", "votes", "stated"], _Teacher(help="Source of soft labels.")
    ] = "auto",
    votes: Annotated[int, _Teacher(min=1, help="Answers for each text, without logprobs.")] = 1,
    shots: Annotated[
        int, _Teacher(min=0, help="Gold rows of each label to show in the prompt.")
    ] = 0,
    label_help: Annotated[
        Path | None, _Teacher(help='TOML file with a line LABEL = "meaning" for each label.')
    ] = None,
    prompt: Annotated[Path | None, _Teacher(help="Prompt file to use instead of ours.")] = None,
    budget: Annotated[
        str, _Budget(help="Most US dollars that all runs with this store may cost, or `none`.")
    ] = "1.00",
    yes: Annotated[bool, _Budget(help="Do not ask before the first call.")] = False,
    price_in: Annotated[
        float | None, _Budget(min=0.0, help="US dollars for a million input tokens.")
    ] = None,
    price_out: Annotated[
        float | None, _Budget(min=0.0, help="US dollars for a million output tokens.")
    ] = None,
    prices: Annotated[Path | None, _Budget(help="Price table to use instead of ours.")] = None,
    batch: Annotated[bool, _Budget(help="Use the batch API: half the price, up to a day.")] = False,
    batch_rows: Annotated[int, _Budget(min=1, max=50_000, help="Rows in one batch.")] = 50_000,
    poll_s: Annotated[float, _Budget(min=0.01, help="Seconds between polls.")] = 60.0,
    rpm: Annotated[float | None, opt.Performance(min=0.01, help="Most requests a minute.")] = None,
    tpm: Annotated[float | None, opt.Performance(min=1.0, help="Most tokens a minute.")] = None,
    concurrency: Annotated[int, opt.Performance(min=1, max=1000, help="Most calls at once.")] = 16,
    timeout_s: Annotated[float, opt.Performance(min=0.05, help="Seconds a call may take.")] = 60.0,
    attempts: Annotated[int, opt.Performance(min=1, help="Most calls for one question.")] = 8,
    gold_rows: Annotated[
        int, opt.Advanced(min=0, help="Most labelled rows to measure the teacher on.")
    ] = 200,
    store: Annotated[
        Path | None,
        opt.Advanced(help="File that stores the answers.", show_default="OUT.answers.sqlite"),
    ] = None,
    probe_injection: Annotated[
        bool, opt.Advanced(help="Measure whether commands in reviews change labels.")
    ] = False,
) -> None:
    """Label reviews by asking frontier models. The cost never exceeds the budget."""
    from sentimill_train.labelling.annotator import TeacherSpec, open_teacher
    from sentimill_train.labelling.job import LabelJob
    from sentimill_train.labelling.prompt import load_meanings, prompt_for
    from sentimill_train.labelling.requests.batch_runner import BatchLimits
    from sentimill_train.labelling.requests.rate_limit import CallRates
    from sentimill_train.labelling.requests.request_loop import RetryLimits
    from sentimill_train.labelling.token_prices import PRICES, price_of

    if not teacher:
        raise UsageError("no teacher was named: add --teacher openai:MODEL", reason="NO_TEACHER")
    if (price_in is None) != (price_out is None):
        raise UsageError("give --price-in and --price-out together", reason="BAD_OPTION")
    given = (price_in, price_out) if price_in is not None and price_out is not None else None
    if probe_injection:
        reviews, out = reviews or "", out or Path("injection-probe")
    if reviews is None or out is None:
        raise UsageError("name the reviews and the file to write", reason="BAD_OPTION")
    opt.check_outputs([out], [reviews, label_help, prompt, prices])
    names = split_names(labels)
    job = LabelJob(
        source=reviews,
        out=out,
        store=store or out.with_name(out.name + ".answers.sqlite"),
        labels=names,
        columns=columns_of(table, label_column),
        budget=_picodollars(budget),
        soft=soft,
        votes=votes,
        shots=shots,
        gold_rows=gold_rows,
        relabel=relabel,
        redact=redact,
        max_words=max_words,
        prompt=prompt or prompt_for(names),
        meanings=load_meanings(label_help, names) if label_help else None,
        rates=CallRates(requests_per_minute=rpm, tokens_per_minute=tpm, concurrency=concurrency),
        retries=RetryLimits(attempts=attempts),
    )
    teachers = []
    for spec in (TeacherSpec.parse(name, base_url) for name in teacher):
        key = os.environ.get(f"{spec.provider.upper()}_API_KEY") or None
        # The table has only the prices of the providers' own hosts.
        known = spec.url is None or prices is not None or given is not None
        quote_ = (
            price_of(spec.provider, spec.model, table=prices or PRICES, given=given, batch=batch)
            if known
            else None
        )
        teachers.append((open_teacher(spec, key=key, timeout_s=timeout_s), quote_))
    if not logging.getLogger().isEnabledFor(logging.DEBUG):
        # The HTTP library logs a line a request, which would break the progress line.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
    if probe_injection:
        _probe(job, teachers)
        return
    limits = BatchLimits(rows=batch_rows, poll_s=poll_s) if batch else None
    _label(job, teachers, limits, yes=yes)


def _label(
    job: LabelJob,
    teachers: Sequence[tuple[Teacher, Quote | None]],
    limits: BatchLimits | None,
    *,
    yes: bool,
) -> None:
    from sentimill_train.labelling.pipeline import Labeller
    from sentimill_train.labelling.progress import progress_line

    def agree(plan: str) -> bool:
        say(plan)
        if yes:
            return True
        if not sys.stdin.isatty():
            raise UsageError(
                "stdin is not a terminal, so nobody can confirm the plan: add --yes",
                reason="NOT_AGREED",
            )
        return typer.confirm("Go on?", err=True)

    with progress_line(console) as tick:
        report = Labeller(job, teachers, agree, tick, limits).run()
    say(f"{report.labelled:,} rows labelled in {job.out}")
    if report.labelled:
        curated = job.out.with_suffix(".curated.jsonl")
        say_next(job.out, ["curate", job.out, curated], ",".join(job.labels))


def _probe(job: LabelJob, teachers: Sequence[tuple[Teacher, Quote | None]]) -> None:
    import msgspec

    from sentimill_train.labelling.injection_test import run_injection_test

    results = run_injection_test(job, teachers)
    for result in results:
        verdict = "passed" if result.passed else "FAILED"
        say(
            f"{result.teacher}: {verdict}, moved {len(result.moved)} of {result.cases}"
            f" ({result.rate:.1%}), {len(result.unanswered)} unanswered,"
            f" mean shift {result.shift:+.3f}"
        )
        typer.echo(msgspec.json.encode(result).decode())
    if not all(result.passed for result in results):
        raise SomeRowsFailed(
            "a teacher follows commands in reviews, or left too many cases unanswered: use another"
            " teacher, another prompt, or a larger --budget",
            reason="TEACHER_IS_COMMANDED",
        )


def _picodollars(budget: str) -> int | None:
    from sentimill_train.labelling.requests.budget import PICO

    if budget == "none":
        return None
    value = number_of(budget)
    if not 0 <= value < 1_000_000:
        raise UsageError(
            f"--budget {budget!r} is not an amount: give dollars, such as 5.00, or `none`",
            reason="BAD_OPTION",
        )
    return round(value * PICO)

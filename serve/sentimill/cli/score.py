"""`sentimill score`: the options of a job, its progress, and what it says at its end."""

from __future__ import annotations

import json
import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from sentimill.bundle.reference import reference_bundle
from sentimill.classifier import Classifier
from sentimill.cli.options import (
    BatchTokensOption,
    BundleOption,
    PrecisionOption,
    ProviderOption,
    ServerOption,
    ThreadsOption,
    TlsCaOption,
    TlsCertOption,
    TlsKeyOption,
    TlsOption,
    TokenFileOption,
    one_model,
)
from sentimill.cli.server_access import ServerAccess
from sentimill.errors import SomeRowsFailed, UsageError

if TYPE_CHECKING:
    # pyarrow, gRPC and metrics take a second to load: each command loads what it needs.
    from sentimill.scoring.runner import Progress, Summary
    from sentimill.scoring.scorers import Scorer

__all__ = ["score"]

_METRICS_S: Final = 10.0
"""Metrics are written at least this far apart while the job runs."""

console = Console(stderr=True, highlight=False, soft_wrap=True)


def score(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="files, addresses or patterns; - reads stdin"),
    ],
    target: Annotated[
        str, typer.Argument(metavar="OUTPUT", help="a file, a folder ending in /, or - for stdout")
    ],
    *,
    bundle: BundleOption = None,
    server: ServerOption = None,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    token_file: TokenFileOption = None,
    text_column: Annotated[
        list[str] | None,
        typer.Option(
            help="column or key with the text; given twice, both are joined", show_default="text"
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="begins the added columns' names")] = "sentiment_",
    probs: Annotated[
        bool, typer.Option("--probs", help="also add one prob column a label")
    ] = False,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="csv, tsv, jsonl (each also .gz, .zst) or parquet",
            show_default="by the suffix",
        ),
    ] = None,
    output_format: Annotated[
        str | None, typer.Option(help="the same for the output", show_default="by the suffix")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="one character", show_default="comma, or tab for tsv")
    ] = None,
    quote: Annotated[str, typer.Option(help="the quote character, or none")] = '"',
    escape: Annotated[
        str | None, typer.Option(help="the character that escapes a quote", show_default="none")
    ] = None,
    encoding: Annotated[str, typer.Option(help="of csv and tsv, such as latin-1")] = "utf-8",
    only_columns: Annotated[
        str | None, typer.Option(help="columns to keep, with commas between", show_default="all")
    ] = None,
    where_missing: Annotated[
        bool, typer.Option("--where-missing", help="score only rows that have no answer yet")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="score 100 rows, write nothing, estimate the rest")
    ] = False,
    max_errors: Annotated[
        int | None, typer.Option(min=0, help="stop past so many bad rows", show_default="never")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the output")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="drop what an interrupted job left")
    ] = False,
    work: Annotated[
        Path | None,
        typer.Option(help="folder for unfinished output", show_default="beside the output"),
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="write the summary as JSON here")] = None,
    metrics_textfile: Annotated[
        Path | None, typer.Option(help="write metrics here, for node_exporter")
    ] = None,
    pushgateway: Annotated[str | None, typer.Option(help="host:port to push metrics to")] = None,
    engine: Annotated[
        Literal["auto", "onnx", "openvino", "ray"],
        typer.Option(help="auto takes the fastest here; ray spreads the inputs over a cluster"),
    ] = "auto",
    address: Annotated[
        str | None, typer.Option(help="of the Ray cluster", show_default="a new one here")
    ] = None,
    actors: Annotated[int, typer.Option(min=1, help="classifiers at work on Ray")] = 1,
    num_gpus: Annotated[float, typer.Option(min=0, help="GPUs of each, may be a fraction")] = 0.0,
    precision: PrecisionOption = "auto",
    provider: ProviderOption = "auto",
    threads: ThreadsOption = None,
    batch_tokens: BatchTokensOption = None,
) -> None:
    """Score one column of tables; rows keep their order and every byte they came with.

    A killed job goes on where it stopped when the same command is run again.
    """
    from sentimill.scoring.formats.table import Layout
    from sentimill.scoring.job import Score
    from sentimill.scoring.scorers import LocalScorer, ServerScorer
    from sentimill.scoring.summary import try_out

    bundle = one_model(context, bundle, server)
    model = bundle or (reference_bundle() if server is None else Path())
    access = ServerAccess(
        tls=tls, ca=tls_ca, certificate=tls_cert, key=tls_key, token_file=token_file
    )
    security = access.security(server)
    _check_dialect(delimiter, quote, escape)
    for file in (summary, metrics_textfile):
        if file is not None and not file.absolute().parent.is_dir():
            why = f"the folder of {file} is not there: create it first"
            raise UsageError(why, reason="NO_SUCH_FOLDER")
    job = Score(
        sources=tuple(sources),
        target=target,
        layout=Layout(
            text_columns=tuple(text_column or ("text",)),
            delimiter=delimiter,
            quote=None if quote == "none" else quote,
            escape=escape,
            encoding=encoding,
            keep=tuple(only_columns.split(",")) if only_columns else (),
            update=where_missing,
        ),
        kind=format_,
        target_kind=output_format,
        prefix=prefix,
        probs=probs,
        overwrite=overwrite,
        restart=restart,
        max_errors=max_errors,
        work=work,
    )
    if engine == "ray" and server is not None:
        raise UsageError("--engine ray needs --bundle", reason="NO_MODEL")
    with ExitStack() as stack:
        if engine == "ray" and not dry_run:
            from sentimill.scoring.ray_runner import Cluster, run_on_ray

            cluster = Cluster(
                bundle=model,
                address=address,
                actors=actors,
                num_gpus=num_gpus,
                precision=precision,
                provider=provider,
                threads=threads,
                batch_tokens=batch_tokens,
            )
            watch = stack.enter_context(_watching(target, metrics_textfile, pushgateway))
            _tell(run_on_ray(job, cluster, report=watch), prefix, summary)
            return
        job.plan()
        scorer: Scorer
        if server is not None:
            scorer = stack.enter_context(closing(ServerScorer(server, security=security)))
        else:
            scorer = LocalScorer(
                Classifier.load(
                    model,
                    precision=precision,
                    engine="auto" if engine == "ray" else engine,
                    provider=provider,
                    threads=threads,
                ),
                batch_tokens=batch_tokens,
            )
        if dry_run:
            typer.echo(json.dumps(try_out(job, scorer), indent=2))
            return
        watch = stack.enter_context(_watching(target, metrics_textfile, pushgateway))
        done = job.run(scorer, report=watch, stop=stack.enter_context(_stopping()))
    _tell(done, prefix, summary)


def _check_dialect(delimiter: str | None, quote: str, escape: str | None) -> None:
    if delimiter is not None and (
        len(delimiter) != 1 or not delimiter.isascii() or delimiter in '"\r\n\0'
    ):
        why = f"--delimiter {delimiter!r} is not one ASCII character that can separate fields"
        raise UsageError(why, reason="BAD_DELIMITER")
    if quote != "none" and (len(quote) != 1 or not quote.isascii() or quote == delimiter):
        why = f"--quote {quote!r} is neither one ASCII character nor the word none"
        raise UsageError(why, reason="BAD_QUOTE")
    if escape is not None and (
        len(escape) != 1 or not escape.isascii() or escape in (delimiter, quote, "\r", "\n", "\0")
    ):
        why = f"--escape {escape!r} is not one ASCII character apart from delimiter and quote"
        raise UsageError(why, reason="BAD_ESCAPE")


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Give an event that the first SIGINT or SIGTERM sets; the second ends the process at once."""
    stop = threading.Event()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def first(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)
        console.print("finishing the rows at hand, then saving; once more ends it at once")

    for number in before:
        signal.signal(number, first)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _watching(
    target: str, textfile: Path | None, gateway: str | None
) -> Iterator[Callable[[Progress], None]]:
    """Give what a job reports to: a bar where there is a terminal, and metrics where asked."""
    from sentimill.scoring.job_metrics import JobMetrics
    from sentimill.scoring.summary import useful_share

    metrics = JobMetrics(target)
    bar = Bar(
        TextColumn("scoring"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("scoring", total=None, said="")
    written = -_METRICS_S

    def watch(progress: Progress) -> None:
        nonlocal written
        tally = progress.tally
        rate = progress.rows_now / max(progress.seconds, 1e-9)
        said = f"{tally.rows:,} rows, {rate:,.0f} rows/s, {useful_share(tally):.0%} useful tokens"
        if tally.failed:
            said += f", {tally.failed:,} errors"
        bar.update(
            task, completed=progress.read_bytes, total=progress.total_bytes or None, said=said
        )
        metrics.set_job(
            rows=tally.rows,
            failed=tally.failed,
            useful_tokens=tally.useful_tokens,
            padded_tokens=tally.padded_tokens,
            seconds=progress.seconds,
        )
        if progress.seconds - written >= _METRICS_S:
            written = progress.seconds
            metrics.publish(textfile, gateway)

    with bar:
        try:
            yield watch
            metrics.finish()
        finally:
            metrics.publish(textfile, gateway)


def _tell(done: Summary, prefix: str, file: Path | None) -> None:
    """Say what was done; the rows with an error decide the exit code."""
    from sentimill.scoring.summary import as_json

    if file is not None:
        file.write_text(json.dumps(as_json(done), indent=2) + "\n", encoding="utf-8")
    rate = (done.rows - done.resumed_rows) / max(done.seconds, 1e-9)
    resumed = f", {done.resumed_rows} of them by an earlier run" if done.resumed_rows else ""
    console.print(
        f"{done.rows} rows{resumed} in {done.seconds:.1f} s ({rate:.0f} rows/s),"
        f" {done.failed} with an error: {' '.join(map(shlex.quote, done.outputs[:3]))}",
    )
    if not done.outputs[0].endswith((".parquet", ".gz", ".zst", "-")):
        console.print(f"look: head -3 {shlex.quote(done.outputs[0])}")
    if done.failed:
        where = done.errors[0] if done.errors else f"the column {prefix}error"
        why = f"{done.failed} rows have no answer, see {where}"
        raise SomeRowsFailed(why, reason="SOME_ROWS_FAILED")

"""`sentimill score`: the options of a job."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from sentimill.bundle.reference import reference_bundle
from sentimill.cli.options import (
    ADVANCED,
    INPUT,
    OUTPUT,
    PERFORMANCE,
    BatchTokensOption,
    BundleOption,
    NoDetectLanguageOption,
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
from sentimill.cli.score_progress import report_end, report_progress, stop_on_signals
from sentimill.cli.server_access import ServerAccess
from sentimill.engine.base import Provider
from sentimill.engine.hardware import Machine, free_gpu_mib, usable_cores
from sentimill.errors import UsageError

if TYPE_CHECKING:
    from sentimill.scoring.scorers import LocalScorer, Scorer  # gRPC takes a while to load

__all__ = ["score"]

_MOST_PROCESSES: Final = 8
"""By default; a server of 12 on an H200 answered 4 % more than one of 8."""

_LARGE_BYTES: Final = 32 << 20
"""An input from which on it pays to load the model several times: some seconds of a GPU."""

_PROCESS_MIB: Final = 5 << 10
"""What a process takes of a GPU's memory, a little rounded up."""


def score(
    context: typer.Context,
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files, addresses or patterns; - reads stdin.",
            rich_help_panel=INPUT,
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="OUTPUT",
            help="A file, a folder that ends in /, or - for stdout.",
            rich_help_panel=OUTPUT,
        ),
    ],
    *,
    text_column: Annotated[
        list[str] | None,
        typer.Option(
            help="Column with the text. Given twice, both are one text.",
            show_default="text",
            rich_help_panel=INPUT,
        ),
    ] = None,
    where_missing: Annotated[
        bool,
        typer.Option(
            "--where-missing", help="Score only rows without a label.", rich_help_panel=INPUT
        ),
    ] = False,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="csv, tsv, json, jsonl (each also .gz, .zst), parquet or xlsx.",
            show_default="by the suffix",
            rich_help_panel=INPUT,
        ),
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="One character.", show_default="by the header line", rich_help_panel=INPUT
        ),
    ] = None,
    quote: Annotated[
        str, typer.Option(help="Quote character, or none.", rich_help_panel=INPUT)
    ] = '"',
    escape: Annotated[
        str | None,
        typer.Option(
            help="Character that escapes a quote.", show_default="none", rich_help_panel=INPUT
        ),
    ] = None,
    encoding: Annotated[
        str, typer.Option(help="Of CSV and TSV, such as latin-1.", rich_help_panel=INPUT)
    ] = "utf-8",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output.", rich_help_panel=OUTPUT)
    ] = False,
    only_columns: Annotated[
        str | None,
        typer.Option(
            help="Columns to keep, separated by commas.", show_default="all", rich_help_panel=OUTPUT
        ),
    ] = None,
    probs: Annotated[
        bool,
        typer.Option("--probs", help="Add a probability per label.", rich_help_panel=OUTPUT),
    ] = False,
    explain_column: Annotated[
        bool,
        typer.Option(
            "--explain-column", help="Add the sentences, as JSON.", rich_help_panel=OUTPUT
        ),
    ] = False,
    prefix: Annotated[
        str, typer.Option(help="Start of the added columns' names.", rich_help_panel=OUTPUT)
    ] = "sentiment_",
    output_format: Annotated[
        str | None,
        typer.Option(help="As --format.", show_default="by the suffix", rich_help_panel=OUTPUT),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write the summary as JSON.", rich_help_panel=OUTPUT)
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Count blank texts as errors.", rich_help_panel=OUTPUT),
    ] = False,
    max_errors: Annotated[
        int | None,
        typer.Option(
            min=0, help="Stop above this many errors.", show_default="never", rich_help_panel=OUTPUT
        ),
    ] = None,
    bundle: BundleOption = None,
    server: ServerOption = None,
    engine: Annotated[
        Literal["auto", "onnx", "openvino", "ray"],
        typer.Option(
            help="auto takes the fastest here; ray runs on a cluster.", rich_help_panel=PERFORMANCE
        ),
    ] = "auto",
    precision: PrecisionOption = "auto",
    provider: ProviderOption = "auto",
    threads: ThreadsOption = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes, each with the model.",
            show_default="one; for large inputs on a GPU up to 8",
            rich_help_panel=PERFORMANCE,
        ),
    ] = None,
    no_detect_language: NoDetectLanguageOption = False,
    batch_tokens: BatchTokensOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Score 100 rows, write nothing, estimate.", rich_help_panel=ADVANCED
        ),
    ] = False,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Delete what an interrupted job left.", rich_help_panel=ADVANCED
        ),
    ] = False,
    work: Annotated[
        Path | None,
        typer.Option(
            help="Folder for unfinished output.",
            show_default="next to the output",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    metrics_textfile: Annotated[
        Path | None,
        typer.Option(help="Write metrics for node_exporter.", rich_help_panel=ADVANCED),
    ] = None,
    pushgateway: Annotated[
        str | None, typer.Option(help="HOST:PORT to push metrics to.", rich_help_panel=ADVANCED)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Of the Ray cluster.", show_default="a new one here", rich_help_panel=ADVANCED
        ),
    ] = None,
    actors: Annotated[
        int, typer.Option(min=1, help="Classifiers on Ray.", rich_help_panel=ADVANCED)
    ] = 1,
    num_gpus: Annotated[
        float, typer.Option(min=0, help="GPUs per Ray actor, or a part.", rich_help_panel=ADVANCED)
    ] = 0.0,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    token_file: TokenFileOption = None,
) -> None:
    """Add a label, a score and more to each row of a table.

    Rows keep their order and their bytes. A killed job goes on where it stopped when the same
    command runs again.
    """
    from sentimill.scoring.formats.table import Layout
    from sentimill.scoring.job import Score
    from sentimill.scoring.scorers import LocalScorer, ProcessScorer
    from sentimill.scoring.server_scorer import ServerScorer
    from sentimill.scoring.storage import identity
    from sentimill.scoring.summary import try_out

    bundle = one_model(context, bundle, server)
    model = bundle or (reference_bundle() if server is None else Path())
    access = ServerAccess(
        tls=tls, ca=tls_ca, certificate=tls_cert, key=tls_key, token_file=token_file
    )
    security = access.security(server)
    _check_dialect(delimiter, quote, escape)
    for file in (summary, metrics_textfile):
        if file is not None:
            _check_writable(file)
    job = Score(
        sources=tuple(sources),
        target=target,
        layout=Layout(
            text_columns=tuple(text_column or ("text",)),
            delimiter=delimiter,
            quote=None if quote == "none" else quote,
            escape=escape,
            encoding=encoding,
            keep=tuple(dict.fromkeys(next(csv.reader([only_columns])))) if only_columns else (),
            update=where_missing,
        ),
        kind=format_,
        target_kind=output_format,
        prefix=prefix,
        probs=probs,
        explain=explain_column,
        overwrite=overwrite,
        restart=restart,
        max_errors=max_errors,
        strict=strict,
        work=work,
    )
    if engine == "ray" and server is not None:
        raise UsageError("--engine ray needs --bundle", reason="NO_MODEL")
    if processes is not None and (engine == "ray" or server is not None):
        why = "--processes is for a model on this machine: use --actors on Ray, and no such option"
        raise UsageError(f"{why} with --server", reason="NO_MODEL")
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
                detect_language=not no_detect_language,
            )
            report = stack.enter_context(report_progress(target, metrics_textfile, pushgateway))
            done = run_on_ray(job, cluster, report=report)
            report_end(done, prefix, summary, job.layout.text_columns[0])
            return
        units = job.plan()
        stop = stack.enter_context(stop_on_signals())
        scorer: Scorer
        if server is not None:
            made = ServerScorer(server, security=security, stop=stop, explain=explain_column)
            scorer = stack.enter_context(closing(made))
        else:
            sizes = [identity(unit.source, sample=False).size_bytes for unit in units]
            count = processes or _default_processes(engine, provider, sum(sizes))
            count = 1 if dry_run else count
            load = partial(
                LocalScorer.load,
                model,
                precision=precision,
                engine="auto" if engine == "ray" else engine,
                provider=provider,
                threads=threads or max(1, usable_cores() // count),
                detect_language=not no_detect_language,
                batch_tokens=batch_tokens,
                explain=explain_column,
            )
            if count == 1:
                scorer = load()
            else:
                started = ProcessScorer(partial(_load, context.obj, load), count)
                scorer = stack.enter_context(closing(started))
        if dry_run:
            typer.echo(json.dumps(try_out(job, scorer), indent=2))
            return
        report = stack.enter_context(report_progress(target, metrics_textfile, pushgateway))
        done = job.run(scorer, report=report, stop=stop)
    report_end(done, prefix, summary, job.layout.text_columns[0])


def _default_processes(engine: str, provider: Provider, size_bytes: int) -> int:
    """Return how many processes keep the engine busy: a GPU is faster than one can tokenise.

    A small input, and standard input, whose size nobody knows, are not worth more than one.
    """
    cuda = "CUDAExecutionProvider" in Machine.here().onnx_providers
    if not cuda or provider == "cpu" or engine == "openvino" or size_bytes < _LARGE_BYTES:
        return 1
    return max(1, min(usable_cores(), _MOST_PROCESSES, free_gpu_mib() // _PROCESS_MIB))


def _load(set_up_logging: Callable[[], None], load: Callable[[], LocalScorer]) -> LocalScorer:
    """Load the model in another process, which logs as this one does."""
    set_up_logging()
    return load()


def _check_writable(file: Path) -> None:
    """Raise UsageError when *file* cannot be written, before hours of work and not after them."""
    folder = file.absolute().parent
    if not folder.is_dir():
        why = f"the folder {folder} does not exist: create it first"
        raise UsageError(why, reason="NO_SUCH_FOLDER")
    if file.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        why = f"{file} cannot be written: name a file in a folder that you may write to"
        raise UsageError(why, reason="UNWRITABLE")


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

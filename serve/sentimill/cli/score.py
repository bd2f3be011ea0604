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

from sentimill.atomic_write import is_device
from sentimill.bundle.reference import reference_bundle
from sentimill.cli import options as opt
from sentimill.cli.score_progress import report_end, report_progress, stop_on_signals
from sentimill.cli.server_access import ServerAccess
from sentimill.engine.base import Provider
from sentimill.engine.hardware import Machine, free_gpu_mib, usable_cores
from sentimill.errors import UsageError

if TYPE_CHECKING:
    from sentimill.scoring.scorers import LocalScorer, Scorer  # gRPC takes a while to load

_MOST_PROCESSES: Final = 8
"""Most processes by default; a server with 12 on an H200 answered only 4 % more than with 8."""

_LARGE_BYTES: Final = 32 << 20
"""From this input size on, loading the model several times pays: some seconds of GPU time."""

_PROCESS_MIB: Final = 5 << 10
"""GPU memory that one process takes, rounded up a little."""


@opt.with_groups
def score(
    context: typer.Context,
    sources: Annotated[
        list[str],
        opt.InputArgument(metavar="INPUT...", help="Files, addresses or patterns; - reads stdin."),
    ],
    target: Annotated[
        str,
        opt.OutputArgument(
            metavar="OUTPUT", help="A file, a folder that ends in /, or - for stdout."
        ),
    ],
    *,
    table: opt.TableOptions,
    where_missing: Annotated[bool, opt.Input(help="Score only rows without a label.")] = False,
    format_: Annotated[
        str | None,
        opt.Input(
            "--format",
            help="csv, tsv, json, jsonl (each also .gz, .zst), parquet or xlsx.",
            show_default="by the suffix",
        ),
    ] = None,
    sheet: Annotated[
        str | None, opt.Input(help="Sheet of a workbook.", show_default="the one with rows")
    ] = None,
    overwrite: opt.OverwriteOption = False,
    only_columns: Annotated[
        str | None, opt.Output(help="Columns to keep, separated by commas.", show_default="all")
    ] = None,
    probs: Annotated[bool, opt.Output(help="Add a probability per label.")] = False,
    explain_column: Annotated[bool, opt.Output(help="Add the sentences, as JSON.")] = False,
    prefix: Annotated[str, opt.Output(help="Prefix of the added columns.")] = "sentiment_",
    output_format: Annotated[
        str | None, opt.Output(help="Like --format.", show_default="by the suffix")
    ] = None,
    summary: Annotated[Path | None, opt.Output(help="Write the summary as JSON.")] = None,
    strict: Annotated[bool, opt.Output(help="Count blank texts as errors.")] = False,
    max_errors: Annotated[
        int | None, opt.Output(min=0, help="Stop above this many errors.", show_default="never")
    ] = None,
    bundle: opt.BundleOption = None,
    server: opt.ServerOption = None,
    engine: Annotated[
        Literal["auto", "onnx", "openvino", "ray"],
        opt.Performance(help="auto takes the fastest here; ray runs on a cluster."),
    ] = "auto",
    runtime: opt.ModelOptions,
    processes: Annotated[
        int | None,
        opt.Performance(
            min=1,
            help="Processes, each with the model.",
            show_default="one; for large inputs on a GPU up to 8",
        ),
    ] = None,
    batch_tokens: opt.BatchTokensOption = None,
    dry_run: Annotated[bool, opt.Advanced(help="Score 100 rows, write nothing, estimate.")] = False,
    restart: Annotated[bool, opt.Advanced(help="Drop the work of an interrupted job.")] = False,
    work: Annotated[
        Path | None,
        opt.Advanced(help="Folder for unfinished output.", show_default="next to the output"),
    ] = None,
    metrics_textfile: Annotated[
        Path | None, opt.Advanced(help="Write metrics for node_exporter.")
    ] = None,
    pushgateway: Annotated[str | None, opt.Advanced(help="HOST:PORT to push metrics to.")] = None,
    address: Annotated[
        str | None, opt.Advanced(help="Address of the Ray cluster.", show_default="a new one here")
    ] = None,
    actors: Annotated[int, opt.Advanced(min=1, help="Classifiers on Ray.")] = 1,
    num_gpus: Annotated[float, opt.Advanced(min=0, help="GPUs per Ray actor, e.g. 0.5.")] = 0.0,
    evidence: opt.NeighbourOptions,
    access: ServerAccess,
) -> None:
    """Add a label, a score and more to each row of a table.

    Rows keep their order and their bytes. To continue a killed job, run the same command again.
    """
    from sentimill.scoring.formats.table import Layout
    from sentimill.scoring.job import Score
    from sentimill.scoring.scorers import LocalScorer, ProcessScorer
    from sentimill.scoring.server_scorer import ServerScorer
    from sentimill.scoring.storage import find, identity, is_folder, is_remote, local
    from sentimill.scoring.summary import try_out

    bundle, server = opt.one_model(context, bundle, server)
    model = bundle or (reference_bundle() if server is None else Path())
    neighbours = evidence.count(server)
    security = access.security(server)
    if summary is not None or metrics_textfile is not None:
        for file in filter(None, (summary, metrics_textfile)):
            _check_writable(file)
        inputs = [local(one) for one in find(sources) if not is_remote(one)]
        output = None if is_remote(target) or is_folder(target) else local(target)
        # The summary is written without a rename, so it may go to a pipe or to /dev/stdout.
        written = None if summary is not None and is_device(summary) else summary
        opt.check_outputs([output, written, metrics_textfile], inputs)
    keep = tuple(dict.fromkeys(next(csv.reader([only_columns])))) if only_columns else ()
    flags = table.flags() if not keep or set(table.text_columns) <= set(keep) else None
    job = Score(
        sources=tuple(sources),
        target=target,
        layout=Layout(
            text_columns=table.text_columns,
            delimiter=table.delimiter,
            quote=table.quote_mark,
            escape=table.escape,
            encoding=table.encoding,
            sheet=sheet,
            keep=keep,
            update=where_missing,
        ),
        kind=format_,
        target_kind=output_format,
        prefix=prefix,
        probs=probs,
        explain=explain_column,
        neighbours=neighbours,
        overwrite=overwrite,
        restart=restart,
        max_errors=max_errors,
        strict=strict,
        work=work,
    )
    if engine == "ray" and server is not None:
        raise UsageError("--engine ray needs --bundle", reason="NO_MODEL")
    if processes is not None and (engine == "ray" or server is not None):
        why = "--processes is for a model on this machine: use --actors on Ray, and leave it out"
        raise UsageError(f"{why} with --server", reason="NO_MODEL")
    with ExitStack() as stack:
        if engine == "ray" and not dry_run:
            from sentimill.scoring.ray_runner import Cluster, run_on_ray

            cluster = Cluster(
                bundle=model,
                address=address,
                actors=actors,
                num_gpus=num_gpus,
                precision=runtime.precision,
                provider=runtime.provider,
                threads=runtime.threads,
                batch_tokens=batch_tokens,
                detect_language=not runtime.no_detect_language,
                index=evidence.index,
            )
            report = stack.enter_context(report_progress(target, metrics_textfile, pushgateway))
            done = run_on_ray(job, cluster, report=report)
            report_end(done, prefix, summary, flags)
            return
        units = job.plan()
        stop = stack.enter_context(stop_on_signals())
        scorer: Scorer
        if server is not None:
            made = ServerScorer(
                server, security=security, stop=stop, explain=explain_column, neighbours=neighbours
            )
            scorer = stack.enter_context(closing(made))
        else:
            sizes = [identity(unit.source, sample=False).size_bytes for unit in units]
            count = processes or _default_processes(engine, runtime.provider, sum(sizes))
            count = 1 if dry_run else count
            load = partial(
                LocalScorer.load,
                model,
                precision=runtime.precision,
                engine="auto" if engine == "ray" else engine,
                provider=runtime.provider,
                threads=runtime.threads or max(1, usable_cores() // count),
                detect_language=not runtime.no_detect_language,
                batch_tokens=batch_tokens,
                explain=explain_column,
                index=evidence.index,
                neighbours=neighbours,
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
    report_end(done, prefix, summary, flags)


def _default_processes(engine: str, provider: Provider, size_bytes: int) -> int:
    """Return how many processes keep the engine busy: one cannot tokenize fast enough for a GPU.

    A small input gets one process, and so does standard input, whose size is not known.
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
    """Raise UsageError if *file* cannot be written, before hours of work instead of after them."""
    folder = file.absolute().parent
    if not folder.is_dir():
        why = f"the folder {folder} does not exist: create it first"
        raise UsageError(why, reason="NO_SUCH_FOLDER")
    if file.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        why = f"{file} cannot be written: name a file in a folder that you may write to"
        raise UsageError(why, reason="UNWRITABLE")

"""The command line. Data goes to stdout, everything else to stderr.

Exit codes: 0 ok, 1 failure, 2 usage, 3 some rows failed, 4 bad input or bundle, 5 texts have moved
(`drift`).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, cast

import msgspec
import typer
from rich.console import Console

from sentimill.bundle.manifest import open_bundle
from sentimill.bundle.reference import reference_bundle
from sentimill.classifier import Classifier
from sentimill.cli.options import (
    Access,
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
from sentimill.cli.score import score
from sentimill.engine.base import EngineName, Precision
from sentimill.errors import SentimillError, SomeRowsFailed, UsageError, outcome
from sentimill.observability.json_logging import as_json, set_up
from sentimill.types import Prediction

__all__ = ["app", "main"]

log = logging.getLogger(__name__)
console = Console(stderr=True, highlight=False, soft_wrap=True)

app = typer.Typer(
    help="Customer sentiment from a small encoder that learned it from a large model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "SENTIMILL", "help_option_names": ["-h", "--help"]},
)
bundle_app = typer.Typer(help="Look at a model folder, or check it.", no_args_is_help=True)
app.add_typer(bundle_app, name="bundle")

EngineOption = Annotated[
    EngineName, typer.Option(help="auto takes the fastest that is installed and runs here")
]
BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="the model folder")]


def main(args: Sequence[str] | None = None) -> None:
    """Run the program on *args*, by default those of the process, and exit.

    Every error of our own and of the system ends in one line and its documented exit code.
    """
    for entry in entry_points(group="sentimill.commands"):
        add_command(app, entry)
    try:
        app(args, prog_name="sentimill")
    except (SentimillError, OSError) as error:
        if as_json():
            log.error("%s", error)
        else:
            console.print("error:", str(error), style="bold red", markup=False)
        raise SystemExit(outcome(error).exit) from error


def add_command(group: typer.Typer, entry: EntryPoint) -> None:
    """Add a command that lives outside the run time; where it cannot be loaded, it says why."""
    try:
        group.command(entry.name)(entry.load())
    except ImportError as error:
        why = f"`sentimill {entry.name}` is not to be had here: {error}"

        def missing() -> None:
            raise UsageError(f"{why}: pip install 'sentimill[train]'", reason="EXTRA_MISSING")

        # Whatever options it would have, the answer is the same.
        loose = {"ignore_unknown_options": True, "allow_extra_args": True}
        group.command(entry.name, help=why, context_settings=loose)(missing)


@app.callback()
def settings(
    context: typer.Context,
    *,
    log_level: Annotated[
        str, typer.Option(help="debug, info, warning or error; log lines go to stderr")
    ] = "info",
    log_format: Annotated[
        Literal["text", "json"], typer.Option(help="json writes one object a line")
    ] = "text",
) -> None:
    """Set up logging, the only place that does."""
    level = logging.getLevelNamesMapping().get(log_level.upper())
    if level is None:
        why = f"unknown --log-level {log_level!r}: use debug, info, warning or error"
        raise UsageError(why, reason="UNKNOWN_LOG_LEVEL")
    set_up(level, log_format)
    context.obj = partial(set_up, level, log_format)


@app.command()
def classify(
    context: typer.Context,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="texts; none, or -, reads lines from stdin"),
    ] = None,
    *,
    bundle: BundleOption = None,
    server: ServerOption = None,
    tls: TlsOption = False,
    tls_ca: TlsCaOption = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    token_file: TokenFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    precision: PrecisionOption = "auto",
    engine: EngineOption = "auto",
    provider: ProviderOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Classify texts, or the lines of stdin: label, score, confidence and text a line."""
    bundle = one_model(context, bundle, server)
    if texts == ["-"]:
        texts = None
    if not texts and sys.stdin.isatty():
        why = "no text given: write it after the command, or pipe lines into it"
        raise UsageError(why, reason="NO_TEXT")
    access = Access(tls=tls, ca=tls_ca, certificate=tls_cert, key=tls_key, token_file=token_file)
    security = access.security(server)
    failed = 0
    lines = texts or _stdin_lines()
    if server is not None:
        from sentimill.client.client import Client

        with Client(server, security=security) as client:
            for chunk in _chunks(lines, 1024):
                failed += _show(chunk, client.classify(chunk), as_json)
    else:
        classifier = Classifier.load(
            bundle or reference_bundle(),
            precision=precision,
            engine=engine,
            provider=provider,
            threads=threads,
        )
        for chunk in _chunks(lines, 1024):
            failed += _show(chunk, classifier.classify(chunk), as_json)
    if failed:
        raise SomeRowsFailed(f"{failed} texts have no answer", reason="SOME_ROWS_FAILED")


@app.command()
def serve(
    context: typer.Context,
    *,
    bundle: BundleOption = None,
    host: Annotated[str, typer.Option(help="address for gRPC")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="port for gRPC; 0 takes a free one")
    ] = 50051,
    metrics_host: Annotated[str, typer.Option(help="address for /metrics")] = "127.0.0.1",
    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="port for /metrics; 0 takes a free one")
    ] = 9464,
    precision: PrecisionOption = "auto",
    engine: EngineOption = "auto",
    provider: ProviderOption = "auto",
    threads: ThreadsOption = None,
    batch_tokens: BatchTokensOption = None,
    notice_seconds: Annotated[
        float,
        typer.Option(min=0, help="after SIGTERM, how long to answer on while balancers notice"),
    ] = 0.0,
    drain_seconds: Annotated[
        float, typer.Option(min=0, help="after that, time for calls under way")
    ] = 20.0,
    max_connection_age_seconds: Annotated[
        float | None,
        typer.Option(min=1, help="close older connections", show_default="never"),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="processes behind the port; where there are GPUs, one each")
    ] = 1,
    reflection: Annotated[bool, typer.Option(help="answer gRPC reflection")] = False,
    open_inference: Annotated[
        bool, typer.Option(help="answer KServe's and Triton's clients on the same port too")
    ] = False,
    insecure: Annotated[
        bool, typer.Option(help="allow an address that is not loopback, without encryption")
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(help="PEM certificates; read again when they change")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="their PEM key, not encrypted")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="PEM certificates that callers must be signed by (mTLS)")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="file of callers' token hashes; see `sentimill token`")
    ] = None,
) -> None:
    """Serve a bundle over gRPC, with Prometheus metrics over HTTP, until SIGTERM."""
    from sentimill.server.lifecycle import Serve, Serving
    from sentimill.server.tls import Tls

    model = bundle or reference_bundle()
    if tls_cert is None or tls_key is None:
        if tls_cert or tls_key or tls_client_ca:
            why = "--tls-cert and --tls-key are given together, --tls-client-ca only with them"
            raise UsageError(why, reason="BAD_TLS")
        tls = None
    else:
        tls = Tls(certificate=tls_cert, key=tls_key, client_ca=tls_client_ca)

    def started(serving: Serving) -> None:
        if as_json():
            said = {
                "bundle": str(model),
                "address": serving.address,
                "http": serving.metrics_address,
            }
            log.info("serving", extra=said)
            return
        console.print(f"serving {model} on {serving.address}")
        console.print(f"status on http://{serving.metrics_address}/")
        console.print(f"metrics on http://{serving.metrics_address}/metrics")
        console.print(f'try: sentimill classify --server {serving.address} "Works as promised."')

    config = Serve(
        bundle=model,
        host=host,
        port=port,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        precision=precision,
        engine=engine,
        provider=provider,
        threads=threads,
        batch_tokens=batch_tokens,
        notice_seconds=notice_seconds,
        drain_seconds=drain_seconds,
        max_connection_age_seconds=max_connection_age_seconds,
        reflection=reflection,
        open_inference=open_inference,
        insecure=insecure,
        tls=tls,
        tokens=tokens,
    )
    if workers == 1:
        config.run(started)
    else:
        from sentimill.server.supervisor import Workers

        Workers(serve=config, count=workers, prepare=context.obj).run(started)


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="the caller; not secret, no blanks")],
    *,
    texts_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="its quota", show_default="none")
    ] = None,
) -> None:
    """Make a token for one caller: the token to stdout, its line for `serve --tokens` to stderr."""
    from sentimill.server.auth import new_token

    made, line = new_token(name, texts_per_second)
    typer.echo(made)
    # Not the console: it would break a long line, and each line of the file is a caller.
    typer.echo(line, err=True)


app.command()(score)


@bundle_app.command()
def inspect(
    bundle: BundleArgument,
    as_json: Annotated[bool, typer.Option("--json", help="the manifest as JSON")] = False,
) -> None:
    """Show what a bundle says of itself. Hashes are not checked; `verify` does that."""
    opened = open_bundle(bundle)
    manifest = opened.manifest
    if as_json:
        found = {"digest": opened.digest, **msgspec.to_builtins(manifest)}
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    size = sum(file.size_bytes for file in manifest.files.values())
    facts: dict[str, object] = {
        "name": manifest.name,
        "version": manifest.version,
        "digest": opened.digest,
        "created": manifest.created,
        "labels": ", ".join(manifest.labels),
        "max tokens": f"{manifest.max_tokens} ({manifest.truncation})",
        "threshold": "never abstains" if manifest.threshold is None else manifest.threshold,
        "base": manifest.base.name,
        "precisions": ", ".join(manifest.precisions),
        "size": f"{size / 1e6:.1f} MB in {len(manifest.files)} files",
        **{name: f"{value:.4f}" for name, value in manifest.metrics.items()},
    }
    for name, value in facts.items():
        typer.echo(f"{name:<22} {value}")


@bundle_app.command()
def verify(bundle: BundleArgument) -> None:
    """Hash every file and replay the golden texts in every precision that runs here."""
    opened = open_bundle(bundle)
    opened.verify()
    for precision in opened.manifest.precisions:
        # A bundle may have precisions that this program does not know yet; load says so.
        try:
            classifier = Classifier.load(bundle, precision=cast(Precision, precision))
        except UsageError as error:
            typer.echo(f"{precision}: not replayed, {error}")
            continue
        provider = classifier.engine.info().provider
        typer.echo(f"{precision}: golden texts give the same probs on {provider}")
    typer.echo(f"ok: {len(opened.manifest.files)} files, digest {opened.digest}")


@app.command()
def doctor(
    bundle: Annotated[
        Path | None, typer.Option(envvar="SENTIMILL_BUNDLE", help="also name this bundle's digest")
    ] = None,
) -> None:
    """Say what this machine can run: versions, providers, CPU flags that matter, GPU."""
    from sentimill.cli.doctor import report

    found = report()
    if bundle is not None:
        found["bundle"] = open_bundle(bundle).digest
    for name, value in found.items():
        typer.echo(f"{name:<14} {value}")


def _show(texts: list[str], answers: Iterable[Prediction | SentimillError], as_json: bool) -> int:
    """Write answers to stdout and return how many are errors."""
    failed = 0
    for text, answer in zip(texts, answers, strict=True):
        # A lone surrogate cannot be written; its answer is an error that says so.
        shown = text.encode("utf-8", "replace").decode("utf-8")
        if isinstance(answer, Prediction):
            found = asdict(answer)
            del found["answered_by"]  # a fallback is for programs: here it is always the student
            score = "" if answer.score is None else f"{answer.score:+.2f}"
            fields = [answer.label, score, f"{answer.confidence:.2f}"]
        else:
            failed += 1
            found = {"error": answer.reason, "message": str(answer)}
            fields = ["error", answer.reason, ""]
        if as_json:
            typer.echo(json.dumps({"text": shown, **found}, ensure_ascii=False))
        else:
            # One line, and no escape sequence of a stranger's text reaches the terminal.
            plain = "".join(c if c.isprintable() else " " for c in shown)
            typer.echo("\t".join([*fields, " ".join(plain.split())]))
    return failed


def _stdin_lines() -> Iterator[str]:
    """Yield stdin's lines; bytes that are not UTF-8 become lone surrogates, which get an error."""
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def _chunks(lines: Iterable[str], size: int) -> Iterator[list[str]]:
    rest = iter(lines)
    while chunk := list(islice(rest, size)):
        yield chunk

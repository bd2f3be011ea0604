"""`sentimill serve`: a bundle behind gRPC, with metrics over HTTP."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sentimill.bundle.reference import find_bundle
from sentimill.cli import options as opt
from sentimill.cli.terminal import say
from sentimill.errors import UsageError
from sentimill.observability.json_logging import as_json

if TYPE_CHECKING:
    from sentimill.server.lifecycle import Serving

log = logging.getLogger(__name__)

_Address: Final = partial(typer.Option, rich_help_panel="Addresses")


@opt.with_groups
def serve(
    context: typer.Context,
    *,
    bundle: opt.BundleOption = None,
    port: Annotated[
        int, _Address(min=0, max=65535, help="Port for gRPC; 0 takes a free one.")
    ] = 50051,
    host: Annotated[str, _Address(help="Address for gRPC.")] = "127.0.0.1",
    metrics_port: Annotated[
        int, _Address(min=0, max=65535, help="Port for the status page and /metrics.")
    ] = 9464,
    metrics_host: Annotated[str, _Address(help="Address for the status page.")] = "127.0.0.1",
    workers: Annotated[
        int, opt.Performance(min=1, help="Processes behind the port, one per GPU.")
    ] = 1,
    engine: opt.EngineOption = "auto",
    runtime: opt.ModelOptions,
    batch_tokens: opt.BatchTokensOption = None,
    index: Annotated[
        Path | None,
        opt.Advanced(
            help="Index of labelled reviews, for callers who ask for neighbours. With --tokens, a"
            " folder that has an index for each caller, under the caller's name."
        ),
    ] = None,
    tokens: Annotated[
        Path | None,
        opt.Secured(
            help="File with the callers' token hashes, from `sentimill token`. With --workers N"
            " each worker grants 1/N of every quota."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, opt.Secured(help="Server certificate (PEM). A changed file is read again.")
    ] = None,
    tls_key: Annotated[Path | None, opt.Secured(help="Its private key, unencrypted (PEM).")] = None,
    tls_client_ca: Annotated[
        Path | None,
        opt.Secured(help="Only accept callers with a certificate of these CAs (mutual TLS)."),
    ] = None,
    insecure: Annotated[
        bool, opt.Secured(help="Allow an address other than loopback without TLS.")
    ] = False,
    reflection: Annotated[bool, opt.Advanced(help="Enable gRPC reflection.")] = False,
    open_inference: Annotated[
        bool, opt.Advanced(help="Also answer KServe and Triton clients.")
    ] = False,
    playground: Annotated[
        bool,
        opt.Advanced(help="Let the status page classify a text that you type; on loopback only."),
    ] = False,
    compression: Annotated[
        bool,
        opt.Advanced(help="Accept compressed requests; they cost a server more than a caller."),
    ] = False,
    engine_timeout_seconds: Annotated[
        float, opt.Advanced(min=1, help="Restart the model when an engine call takes longer.")
    ] = 30.0,
    notice_seconds: Annotated[
        float,
        opt.Advanced(
            min=0,
            help="Seconds to keep serving after SIGTERM while load balancers stop routing here.",
        ),
    ] = 0.0,
    drain_seconds: Annotated[
        float, opt.Advanced(min=0, help="Seconds that running calls may then still take.")
    ] = 20.0,
    max_connection_age_seconds: Annotated[
        float | None,
        opt.Advanced(
            min=1,
            help="Close connections of this age, so that load balancers spread them.",
            show_default="never",
        ),
    ] = None,
) -> None:
    """Serve a bundle over gRPC, with a status page and Prometheus metrics over HTTP.

    SIGTERM drains and stops the server; SIGHUP loads the bundle and the index again.
    """
    from sentimill.server.access.tls import Tls
    from sentimill.server.lifecycle import run
    from sentimill.server.settings import Serve
    from sentimill.server.watchdog import WatchdogLimits

    # A bundle on the Hub is looked up once, so every worker and every reload has the same revision.
    model = Path(find_bundle(bundle))
    if tls_cert is None or tls_key is None:
        if tls_cert or tls_key or tls_client_ca:
            why = "give --tls-cert and --tls-key together, and --tls-client-ca only with them"
            raise UsageError(why, reason="BAD_TLS")
        tls = None
    else:
        tls = Tls(certificate=tls_cert, key=tls_key, client_ca=tls_client_ca)
    config = Serve(
        bundle=model,
        host=host,
        port=port,
        metrics_host=metrics_host,
        metrics_port=metrics_port,
        precision=runtime.precision,
        engine=engine,
        provider=runtime.provider,
        threads=runtime.threads,
        detect_language=not runtime.no_detect_language,
        batch_tokens=batch_tokens,
        index=index,
        notice_seconds=notice_seconds,
        drain_seconds=drain_seconds,
        max_connection_age_seconds=max_connection_age_seconds,
        watchdog=WatchdogLimits(call_seconds=engine_timeout_seconds),
        compression=compression,
        playground=playground,
        reflection=reflection,
        open_inference=open_inference,
        insecure=insecure,
        tls=tls,
        tokens=tokens,
    )

    def started(serving: Serving) -> None:
        _tell_addresses(model, serving)

    if workers == 1:
        run(config, started)
    else:
        from sentimill.server.workers.supervisor import run_workers

        run_workers(config, workers, context.obj, started)


def _tell_addresses(model: Path, serving: Serving) -> None:
    """Say where the server listens, and how to call it."""
    if as_json():
        addresses = {"address": serving.address, "http": serving.metrics_address}
        log.info("serving", extra={"bundle": str(model), **addresses})
        return
    say(f"serving {model} on {serving.address}")
    say(f"status on http://{serving.metrics_address}/")
    say(f"metrics on http://{serving.metrics_address}/metrics")
    say(f'try: sentimill classify --server {serving.address} "Works as promised."')

"""The settings of a server: its bundle, its addresses, its limits, and who may call."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sentimill.engine.base import EngineName, Precision, Provider
from sentimill.errors import UsageError
from sentimill.server.access.tls import Tls
from sentimill.server.addresses import is_loopback
from sentimill.server.request_handler import Limits
from sentimill.server.watchdog import WatchdogLimits


@dataclass(frozen=True, kw_only=True)
class Serve:
    """The settings of a server of one bundle.

    index: with `tokens`, a folder that has an index for each caller, under the caller's name.
    compression: the server accepts compressed requests. notice_seconds, drain_seconds: see
    `GrpcServer.drain`. quota_share: the share of each caller's quota that this process grants,
    since every worker counts for itself. shared_port: other processes listen on the port too.
    """

    bundle: Path
    host: str = "127.0.0.1"
    port: int = 50051
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 9464
    precision: Precision = "auto"
    engine: EngineName = "auto"
    provider: Provider = "auto"
    threads: int | None = None
    detect_language: bool = True
    tokenizer_threads: int = 2
    batch_tokens: int | None = None
    index: Path | None = None
    limits: Limits = field(default_factory=Limits)
    watchdog: WatchdogLimits = field(default_factory=WatchdogLimits)
    notice_seconds: float = 0.0
    drain_seconds: float = 20.0
    max_connection_age_seconds: float | None = None
    reflection: bool = False
    compression: bool = False
    playground: bool = False
    open_inference: bool = False
    insecure: bool = False
    tls: Tls | None = None
    tokens: Path | None = None
    quota_share: float = 1.0
    shared_port: bool = False

    def check_host(self) -> None:
        """Raise UsageError where calls would cross a network without encryption."""
        if self.playground and (not is_loopback(self.metrics_host) or self.tokens is not None):
            raise UsageError(
                "--playground answers without a token, so only on this machine: use a loopback"
                " address as --metrics-host, and leave --tokens out",
                reason="INSECURE_BIND",
            )
        if not (self.insecure or self.tls is not None or is_loopback(self.host)):
            raise UsageError(
                f"--host {self.host} is not a loopback address and calls are not encrypted: give"
                " --tls-cert and --tls-key, or put a TLS proxy in front of it and add"
                " --insecure",
                reason="INSECURE_BIND",
            )

"""Connects clients (TLS, tokens, retries, limits), and turns failed calls into errors."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Final

import grpc
from google.rpc import error_details_pb2, status_pb2

from sentimill.errors import (
    AuthError,
    DeadlineError,
    InputError,
    QuotaError,
    SentimillError,
    UnavailableError,
)

_SERVICE: Final = "sentimill.v1.SentimentService"
METHOD: Final = f"/{_SERVICE}/"
"""Prefix of a method's full name."""

_ATTEMPTS: Final = 4
_MAX_RESPONSE_BYTES: Final = 16 << 20
_SERVICE_CONFIG: Final = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": _SERVICE, "method": name} for name in ("Classify", "GetModel")],
            "retryPolicy": {
                "maxAttempts": _ATTEMPTS,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                # Only this code means that nothing was computed.
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # When more than half of these calls fail in a row, gRPC stops retrying, so that a server that
    # is down does not get four times its load.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
}
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MAX_RESPONSE_BYTES),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # gRPC does not retry a request that is larger than this buffer.
    ("grpc.per_rpc_retry_buffer_size", 4 << 20),
    # While calls run, a dead peer is noticed within 40 s. The server allows keepalive pings this
    # often.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Without this option, several channels to one address would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
)

# What gRPC's messages about a connection that failed mean, the most specific message first.
_HANDSHAKES: Final = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "CERTIFICATE_REFUSED",
        "the server's certificate is not signed by an authority that this client trusts: name that"
        " authority's certificate (--tls-ca)",
    ),
    (
        "Hostname Verification Check failed",
        "CERTIFICATE_REFUSED",
        "the server's certificate is for another host name: use the name in the certificate",
    ),
    ("WRONG_VERSION_NUMBER", "TLS_REFUSED", "the server does not use TLS: connect without TLS"),
    (
        "Connection refused",
        "UNAVAILABLE",
        "no server listens at this address: check host and port, or start one (`sentimill serve`)",
    ),
    (
        "Socket closed",
        "UNAVAILABLE",
        "the server closed the connection: it may be stopping, it may require TLS (--tls-ca), or it"
        " may not know the client's certificate (--tls-cert)",
    ),
)

# For a message above a size limit, gRPC uses the code of a used-up quota and these words.
_TOO_LARGE: Final = re.compile(r"message larger than max(?:.*?\((\d+) vs\.? (\d+)\))?")

# Codes with an error class of their own. gRPC itself raises some of them, without ErrorInfo.
_KINDS: Final[dict[grpc.StatusCode, type[SentimillError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QuotaError,
    grpc.StatusCode.UNAUTHENTICATED: AuthError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """Credentials of a client. `ca`, `certificate` and `key` are the contents of PEM files.

    ca: the certificate of the authority to trust; None with `tls` trusts the system's authorities.
    certificate, key: the client's own, where the server asks for one (mTLS). token: sent with each
    call. Without TLS, anyone on the network path can read the token.
    """

    tls: bool = True
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def channel(self, address: str) -> grpc.Channel:
        """Return a channel to *address*, which connects at its first call."""
        if not self.tls:
            return grpc.insecure_channel(address, options=_OPTIONS)
        return grpc.secure_channel(address, self._credentials(), options=_OPTIONS)

    def aio_channel(self, address: str) -> grpc.aio.Channel:
        """Return a channel for asyncio. Call it in the event loop that will use the channel."""
        if not self.tls:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return grpc.aio.secure_channel(address, self._credentials(), options=_OPTIONS)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of each call: the token, where there is one."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def _credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def error_of(error: grpc.RpcError) -> SentimillError:
    """Return the SentimillError for an error of gRPC.

    CANCELLED never means that the caller cancelled, since that raises another exception. gRPC gives
    this code to calls that a stopping server ended, and to calls that arrive at that moment.
    """
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    code = error.code()
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status.ParseFromString(value)
    if code is grpc.StatusCode.CANCELLED:
        why = "the server stopped before it answered: call again, another instance will answer"
        return UnavailableError(why, reason="SERVER_STOPPED")
    said, reason = error.details() or code.name, reason_of(status) or code.name
    if reason == "RESOURCE_EXHAUSTED" and (found := _TOO_LARGE.search(said)):
        return _too_large(said, found)
    if code is grpc.StatusCode.UNAVAILABLE and reason == code.name:
        said, reason = next(
            ((f"{hint} ({said})", name) for mark, name, hint in _HANDSHAKES if mark in said),
            (said, reason),
        )
    return _KINDS.get(code, SentimillError)(said, reason=reason)


def reason_of(status: status_pb2.Status) -> str:
    """Return the reason in the ErrorInfo of *status*, empty where it has none."""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""


def _too_large(said: str, found: re.Match[str]) -> InputError:
    """Return the error for a message above a limit. The same call would fail again."""
    size, limit = found.groups()
    if "CLIENT: Received" in said:
        why = "the response is larger than this client accepts: send fewer texts in one request"
    else:
        sizes = f" ({size} bytes, the limit is {limit})" if size else ""
        why = (
            f"the request is larger than the server accepts{sizes}: call model() first, which"
            " tells the client the server's limits, or send shorter texts"
        )
    return InputError(f"{why} ({said})", reason="MESSAGE_TOO_LARGE")

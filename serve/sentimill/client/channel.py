"""What both clients share: how they connect, what they send, and what they make of answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import grpc
from google.rpc import error_details_pb2, status_pb2

from sentimill.classifier import Prediction
from sentimill.errors import (
    OUTCOMES,
    AuthError,
    DeadlineError,
    EngineError,
    InputError,
    QuotaError,
    SentimillError,
    TextError,
    UnavailableError,
)
from sentimill.text.tokenizer import check_size
from sentimill.v1 import sentiment_pb2 as pb

__all__ = [
    "METHOD",
    "Limits",
    "Model",
    "Result",
    "Security",
    "check_settings",
    "error_of",
    "fill",
    "model_of",
    "requests_of",
]

_SERVICE: Final = "sentimill.v1.SentimentService"
METHOD: Final = f"/{_SERVICE}/"
_MAX_ITEMS: Final = 256
"""Texts in one request: enough to fill batches, few enough to keep a call's latency even."""

_MAX_BYTES: Final = 2 << 20
"""Bytes in one request, a quarter of what the server accepts unless it is told otherwise."""

_ITEM_BYTES: Final = 16
"""More than what a text takes in a message besides its own bytes."""

_ATTEMPTS: Final = 4
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
                # The one code that means "not begun"; a text that failed would fail again.
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # Past half of these failures without successes, nothing is tried again: a server that is down
    # does not get four times its load.
    "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5},
}
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    # A request that does not fit in here is not tried again.
    ("grpc.per_rpc_retry_buffer_size", 4 << 20),
    # A peer that is gone is noticed in 40 s while calls are under way; the server lets it ask so
    # often (server.py).
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Or several channels to one address would share one connection.
    ("grpc.use_local_subchannel_pool", 1),
)

# What gRPC's own words for a connection that did not come about mean, most telling first.
_HANDSHAKES: Final = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "CERTIFICATE_REFUSED",
        "the server's certificate is not signed by an authority that is trusted here: name that"
        " authority's certificate (--tls-ca)",
    ),
    (
        "Hostname Verification Check failed",
        "CERTIFICATE_REFUSED",
        "the server's certificate is for another host name: use the name that it is for",
    ),
    ("WRONG_VERSION_NUMBER", "TLS_REFUSED", "the server speaks without TLS: so must the client"),
    (
        "Socket closed",
        "UNAVAILABLE",
        "the server closed the connection, as one does that is stopping, that wants TLS (--tls-ca)"
        " or that does not know the client's certificate (--tls-cert)",
    ),
)

Result: TypeAlias = Prediction | TextError | EngineError
"""What one text got."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server accepts; fields as in the message `Limits`."""

    max_items: int
    max_text_bytes: int
    max_request_bytes: int
    max_waiting_texts: int
    max_waiting_tokens: int


@dataclass(frozen=True, slots=True)
class Model:
    """The model that a server has loaded; fields as in `GetModelResponse`."""

    name: str
    version: str
    digest: str
    labels: tuple[str, ...]
    max_tokens: int
    precision: str
    provider: str
    threshold: float | None
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How a client proves who it is, and knows the server. Contents of PEM files, as bytes.

    ca: whom to trust; None with `tls` takes the system's. certificate, key: the client's own, where
    the server asks for one (mTLS). token: sent with each call; without TLS anyone on the way can
    read it.
    """

    tls: bool = True
    ca: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def channel(self, address: str) -> grpc.Channel:
        """Connect lazily to *address*."""
        if not self.tls:
            return grpc.insecure_channel(address, options=_OPTIONS)
        return grpc.secure_channel(address, self._credentials(), options=_OPTIONS)

    def aio_channel(self, address: str) -> grpc.aio.Channel:
        """Connect lazily to *address*, for asyncio."""
        if not self.tls:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        return grpc.aio.secure_channel(address, self._credentials(), options=_OPTIONS)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what each call carries."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def _credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def check_settings(timeout_seconds: float, channels: int, concurrency: int) -> None:
    """Raise InputError for settings with which no call is made."""
    if timeout_seconds <= 0 or channels < 1 or concurrency < 1:
        raise InputError(
            f"timeout_seconds {timeout_seconds}, channels {channels} and concurrency {concurrency}"
            " must be above 0",
            reason="BAD_CLIENT",
        )


def requests_of(
    texts: Sequence[str],
    results: list[Result | None],
    *,
    bulk: bool,
    limits: Limits | None = None,
) -> Iterator[tuple[list[int], pb.ClassifyRequest]]:
    """Yield requests within the limits on items and bytes, and the places of their texts.

    A text that no server takes gets its error in *results* and is not sent: it would take its
    neighbours with it. limits: the server's, None where they are not known.
    """
    if isinstance(texts, str):
        why = "classify takes a list of texts and was given one string: write classify([text])"
        raise InputError(why, reason="NOT_A_LIST")
    most_items, most_bytes = _MAX_ITEMS, _MAX_BYTES
    if limits is not None:
        # Half of the queue: bulk work may not fill all of it, and others want in.
        most_items = max(1, min(most_items, limits.max_items, limits.max_waiting_texts // 2))
        most_bytes = min(most_bytes, limits.max_request_bytes)
    priority = pb.PRIORITY_BULK if bulk else pb.PRIORITY_INTERACTIVE
    places: list[int] = []
    items: list[pb.ClassifyItem] = []
    size = 0
    for place, text in enumerate(texts):
        # As bytes, so that a lone surrogate fails its own text and not the whole message.
        data = text.encode("utf-8", "surrogatepass")
        try:
            check_size(len(data))
        except TextError as error:
            results[place] = error
            continue
        more = len(data) + _ITEM_BYTES
        if items and (len(items) == most_items or size + more > most_bytes):
            yield places, pb.ClassifyRequest(items=items, priority=priority)
            places, items, size = [], [], 0
        places.append(place)
        items.append(pb.ClassifyItem(utf8=data))
        size += more
    if items:
        yield places, pb.ClassifyRequest(items=items, priority=priority)


def fill(results: list[Result | None], places: list[int], data: bytes) -> None:
    """Put the results of the ClassifyResponse *data* in their *places*."""
    response = pb.ClassifyResponse.FromString(data)
    for place, result in zip(places, response.results, strict=True):
        if result.WhichOneof("outcome") == "prediction":
            got = result.prediction
            results[place] = Prediction(
                label=got.label,
                probs=tuple(got.probs),
                score=got.score if got.HasField("score") else None,
                confidence=got.confidence,
                abstained=got.abstained,
                truncated=got.truncated,
                tokens=got.tokens,
            )
        else:
            kind = EngineError if result.error.code == OUTCOMES[EngineError].code else TextError
            results[place] = kind(result.error.message, reason=_reason(result.error))


def model_of(data: bytes) -> Model:
    """Return the GetModelResponse *data* as a record."""
    response = pb.GetModelResponse.FromString(data)
    return Model(
        name=response.name,
        version=response.version,
        digest=response.digest,
        labels=tuple(response.labels),
        max_tokens=response.max_tokens,
        precision=response.precision,
        provider=response.provider,
        threshold=response.threshold if response.HasField("threshold") else None,
        limits=Limits(
            max_items=response.limits.max_items,
            max_text_bytes=response.limits.max_text_bytes,
            max_request_bytes=response.limits.max_request_bytes,
            max_waiting_texts=response.limits.max_waiting_texts,
            max_waiting_tokens=response.limits.max_waiting_tokens,
        ),
    )


# Codes that say more to a caller than "failed"; gRPC itself raises some of them without ErrorInfo.
_KINDS: Final[dict[grpc.StatusCode, type[SentimillError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InputError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: QuotaError,
    grpc.StatusCode.UNAUTHENTICATED: AuthError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
}


def error_of(error: grpc.RpcError) -> SentimillError:
    """Return the error of our own tree for what gRPC raised.

    CANCELLED is never the caller's own doing here: that raises another exception. gRPC gives it to
    calls that a stopping server cut, and to those that reach one just then.
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
    said, reason = error.details() or code.name, _reason(status) or code.name
    if code is grpc.StatusCode.UNAVAILABLE and reason == code.name:
        said, reason = next(
            ((f"{hint} ({said})", name) for mark, name, hint in _HANDSHAKES if mark in said),
            (said, reason),
        )
    return _KINDS.get(code, SentimillError)(said, reason=reason)


def _reason(status: status_pb2.Status) -> str:
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""

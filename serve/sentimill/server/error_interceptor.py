"""The one error boundary around a gRPC call, where calls are also counted and traced.

Handlers raise errors, and only this module turns them into a gRPC status. Any other error than a
SentimillError becomes INTERNAL without its text, because the text may hold what a customer wrote.

A call is ended with `set_code` and never with `context.abort`. Abort leaves an exception in gRPC's
state of the call, and its traceback holds the request until the garbage collector runs: a server
that refused 40 large calls kept 3 GiB (docs/security.md).
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from sentimill.errors import (
    AuthError,
    DeadlineError,
    InputError,
    QuotaError,
    SentimillError,
    UnavailableError,
    outcome,
)
from sentimill.observability.metrics import Metrics
from sentimill.observability.tracing import Spans, trace_id

log = logging.getLogger(__name__)

DOMAIN: Final = "sentimill"
"""`google.rpc.ErrorInfo.domain` of every error."""

# Handlers of any service pass through here, so their messages are of any type.
AnyContext: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
AnyHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_MOST_PUSHBACK_SECONDS: Final = 30.0

_MOST_FOREIGN_BYTES: Final = 4096
"""The size limit of a request to gRPC's own services, health and reflection."""

_POLLED: Final = {"ServerLive", "ServerReady"}
"""Methods of health probes, which are not counted."""


@dataclass(slots=True)
class Call:
    """The call that a handler answers. Metrics count it under *method*, which may be changed."""

    method: str


_CALL: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """Return the call that the running handler answers."""
    return _CALL.get()


class CallBoundary:
    """Counts and traces calls, and turns exceptions into statuses. For the event loop's thread.

    retry_seconds: estimates how long a caller that is refused now should wait.
    """

    def __init__(
        self, metrics: Metrics, retry_seconds: Callable[[], float], spans: Spans | None = None
    ) -> None:
        self.metrics = metrics
        self.spans = spans or Spans()
        self._retry_seconds = retry_seconds

    @contextmanager
    def record(self, method: str, context: AnyContext) -> Iterator[Call]:
        """Count and trace what happens inside as one call. Exceptions pass through."""
        began = time.monotonic()
        call = Call(method)
        code = "OK"
        metadata = context.invocation_metadata() or ()
        reset = _CALL.set(call)
        with self.spans.call(method, metadata), self.metrics.in_flight.track_inprogress():
            try:
                yield call
            except Exception as error:
                code = outcome(error).grpc
                raise
            except BaseException:
                code = _code_of_cancelled(context)
                raise
            finally:
                _CALL.reset(reset)
                self.count(call.method, code, time.monotonic() - began, context)

    def count(self, method: str, code: str, seconds: float, context: AnyContext) -> None:
        """Count one call that took *seconds*."""
        trace = trace_id(context.invocation_metadata() or ())
        self.metrics.observe_request(method, code, seconds, trace)
        self.spans.end(code)
        log.debug("request", extra={"method": method, "code": code, "seconds": seconds})

    def status(self, error: Exception) -> status_pb2.Status:
        """Return the status of *error* and count a refusal. Log any but a SentimillError."""
        if isinstance(error, DecodeError):
            why = "the message cannot be read: send the one that this method takes"
            error = InputError(why, reason="MALFORMED_REQUEST")
        if not isinstance(error, SentimillError):
            log.error("request failed", exc_info=error)
            hidden = "internal error, see the server's log"
            return status_of(SentimillError(hidden, reason="INTERNAL"))
        if isinstance(error, UnavailableError | DeadlineError | QuotaError | AuthError):
            self.metrics.refused.labels(error.reason).inc()
        status = status_of(error)
        if isinstance(error, UnavailableError):
            # A message of a stream has no trailers of its own, so its status says when to retry.
            delay = duration_pb2.Duration()
            delay.FromMilliseconds(self._pushback_ms())
            _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
        return status

    def end(self, context: AnyContext, error: Exception) -> None:
        """End a call with the status of *error*, and drop what the error refers to."""
        status = self.status(error)
        trailers: list[tuple[str, str | bytes]] = [
            ("grpc-status-details-bin", status.SerializeToString())
        ]
        if isinstance(error, UnavailableError):
            trailers.append(("grpc-retry-pushback-ms", str(self._pushback_ms())))
        context.set_code(_CODES[status.code])
        context.set_details(status.message)
        context.set_trailing_metadata(tuple(trailers))
        release(error)

    def _pushback_ms(self) -> int:
        return math.ceil(1000 * min(max(self._retry_seconds(), 0.1), _MOST_PUSHBACK_SECONDS))


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Puts every handler of a server inside the boundary, those of health and reflection too.

    counted: the services whose calls are counted and traced.
    """

    def __init__(self, boundary: CallBoundary, counted: Iterable[str] = ()) -> None:
        self._boundary = boundary
        self._counted = frozenset(counted)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[AnyHandler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> AnyHandler | None:
        """Return the handler of a call inside the boundary; None where there is no handler."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        _, service, method = handler_call_details.method.split("/")
        counted = method if service in self._counted and method not in _POLLED else None
        parse, write = _bounded(handler.request_deserializer), handler.response_serializer
        if handler.unary_unary is not None:
            behaviour = self._unary(handler.unary_unary, parse, counted)
            return grpc.unary_unary_rpc_method_handler(behaviour, None, write)
        if handler.unary_stream is not None:
            behaviour = self._stream(handler.unary_stream, parse, counted)
            return grpc.unary_stream_rpc_method_handler(behaviour, None, write)
        if handler.stream_stream is not None:
            behaviour = self._stream(handler.stream_stream, None, counted)
            return grpc.stream_stream_rpc_method_handler(behaviour, parse, write)
        return handler

    def _unary(
        self, behaviour: Any, parse: Callable[[bytes], Any] | None, counted: str | None
    ) -> Any:
        async def answer(request: Any, context: AnyContext) -> Any:
            record = self._boundary.record(counted, context) if counted else nullcontext()
            try:
                with record:
                    return await behaviour(parse(request) if parse else request, context)
            except grpc.aio.AbortError:
                raise  # a handler of another library has ended the call itself
            except Exception as error:  # noqa: BLE001 - the boundary of a call
                self._boundary.end(context, error)
            return None  # gRPC sends no response with a status that is not OK

        return answer

    def _stream(
        self, behaviour: Any, parse: Callable[[bytes], Any] | None, counted: str | None
    ) -> Any:
        """Wrap a stream. Its handler counts its messages; here only its failure is counted."""

        async def stream(request: Any, context: AnyContext) -> AsyncIterator[Any]:
            try:
                found = behaviour(parse(request) if parse else request, context)
                if inspect.isawaitable(found):
                    await found  # the handler writes to the context itself
                    return
                async for response in found:
                    yield response
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001 - the boundary of a call
                if counted:
                    # The time that a stream was open is not a latency.
                    self._boundary.count(counted, outcome(error).grpc, 0.0, context)
                self._boundary.end(context, error)

        return stream


def _bounded(parse: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """Return *parse* of health or reflection with a limit on the size of a request.

    A health request needs no token, and parsing 4 MiB of unknown fields takes 60 ms.
    """
    if parse is None:
        return None

    def parse_small(data: bytes) -> Any:
        if len(data) > _MOST_FOREIGN_BYTES:
            why = f"the request has {len(data)} bytes, the limit here is {_MOST_FOREIGN_BYTES}"
            raise InputError(why, reason="REQUEST_TOO_LARGE")
        return parse(data)

    return parse_small


def release(error: BaseException | None) -> None:
    """Drop the frames that *error* and its causes refer to, and with them the request."""
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def seconds_left(context: AnyContext) -> float | None:
    """Return how long the caller still waits, None where it set no deadline."""
    # The stubs say float; grpc.aio gives None where the caller set no deadline.
    return cast(float | None, context.time_remaining())


def status_of(error: SentimillError, field: str | None = None) -> status_pb2.Status:
    """Return the status of *error*: code, message, stable reason and, for bad input, the path.

    field: the path to use if *error* has none.
    """
    status = status_pb2.Status(code=outcome(error).code, message=str(error))
    _add(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if isinstance(error, InputError) and (path := error.field or field):
        violation = error_details_pb2.BadRequest.FieldViolation(field=path, description=str(error))
        _add(status, error_details_pb2.BadRequest(field_violations=[violation]))
    return status


_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


def _code_of_cancelled(context: AnyContext) -> str:
    """Return why gRPC cancelled a call: its deadline passed, or its caller has gone."""
    left = seconds_left(context)
    return "CANCELLED" if left is None or left > 0 else "DEADLINE_EXCEEDED"


def _add(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)

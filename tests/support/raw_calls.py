"""Raw calls of the service: messages in, messages and statuses out, without a client of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from live_server import Live
from sentimill.server.sentiment_service import SERVICE
from sentimill.v1 import sentiment_pb2 as pb


@asynccontextmanager
async def connected(live: Live) -> AsyncIterator[grpc.aio.Channel]:
    """Connect to *live* without a client of ours."""
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(live.address, options=options) as channel:
        yield channel


def request_of(*texts: str | bytes | None) -> pb.ClassifyRequest:
    """Return a request with a text, bytes or nothing in each item."""
    items = [
        pb.ClassifyItem(text=text) if isinstance(text, str) else pb.ClassifyItem(utf8=text)
        for text in texts
    ]
    return pb.ClassifyRequest(items=items)


async def send(
    live: Live,
    message: Message | bytes,
    *,
    method: str = "Classify",
    timeout: float | None = None,
    token: str = "",
) -> bytes:
    """Call *method* and return the raw answer."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    async with connected(live) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(f"/{SERVICE}/{method}")
        metadata = (("authorization", f"Bearer {token}"),) if token else None
        return await call(data, timeout=timeout, metadata=metadata)


async def classify(
    live: Live, *texts: str | bytes | None, timeout: float | None = None
) -> pb.ClassifyResponse:
    """Call Classify."""
    data = await send(live, request_of(*texts), timeout=timeout)
    return pb.ClassifyResponse.FromString(data)


async def refusal(live: Live, message: Message | bytes) -> grpc.aio.AioRpcError:
    """Return the error with which Classify answers *message*."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(live, message)
    return caught.value


def reason_of(status: status_pb2.Status) -> str:
    """Return the reason in a status, which must be of our domain."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "sentimill"
    return str(info.reason)


def field_of(status: status_pb2.Status) -> str | None:
    """Return the path of the one field at fault, if any; it is described as the status is."""
    bad = error_details_pb2.BadRequest()
    if not any(detail.Unpack(bad) for detail in status.details):
        return None
    (violation,) = bad.field_violations
    assert violation.description == status.message
    return str(violation.field)


def status_in(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the status in the trailers of an error, whose code and message agree with it."""
    (details,) = [v for k, v in error.trailing_metadata() if k == "grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    return status


def reason_in(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in the trailers of an error."""
    return reason_of(status_in(error))


def outcomes(response: pb.ClassifyResponse) -> list[str]:
    """Return the label of each result, or the reason of its error."""
    return [
        result.prediction.label if result.HasField("prediction") else reason_of(result.error)
        for result in response.results
    ]

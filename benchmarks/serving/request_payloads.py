"""Encoded calls, so that the work of a client is no part of what is measured."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from sentimill.server.sentiment_service import SERVICE
from sentimill.v1 import sentiment_pb2 as pb

__all__ = ["method_of", "request_of", "requests_of"]


def method_of(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    """Return the method Classify of *channel*, from bytes to bytes."""
    method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
    method = channel.unary_unary(f"/{SERVICE}/Classify")
    return method


def request_of(texts: Sequence[str], neighbours: int = 0) -> bytes:
    """Return one request."""
    items = [pb.ClassifyItem(text=text) for text in texts]
    return pb.ClassifyRequest(items=items, neighbours=neighbours).SerializeToString()


def requests_of(texts: Sequence[str], size: int, neighbours: int = 0) -> list[bytes]:
    """Return requests of *size* texts each. The last texts that fill no request are left out."""
    starts = range(0, len(texts) - size + 1, size)
    return [request_of(texts[i : i + size], neighbours) for i in starts]

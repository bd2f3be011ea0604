"""The last line of the edge: what no handler caught becomes INTERNAL, without its text.

grpc.aio sends the text of an exception to the caller, and gives one code for every message that it
cannot read. Here both become an answer like every other.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError

__all__ = ["Guard"]

log = logging.getLogger(__name__)

# Handlers of any service go through here, so their messages are of any type.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class Guard(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server, ours and those of health and reflection."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of a call with the guard around it; None where there is none."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        parse, write = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary is not None:
            behaviour = _answering(handler.unary_unary, parse)
            return grpc.unary_unary_rpc_method_handler(behaviour, None, write)
        if handler.unary_stream is not None:
            behaviour = _streaming(handler.unary_stream, parse)
            return grpc.unary_stream_rpc_method_handler(behaviour, None, write)
        if handler.stream_stream is not None:
            behaviour = _streaming(handler.stream_stream, None)
            return grpc.stream_stream_rpc_method_handler(behaviour, parse, write)
        return handler


def _answering(behaviour: Any, parse: Callable[[bytes], Any] | None) -> Any:
    async def answer(request: Any, context: Context) -> Any:
        try:
            return await behaviour(parse(request) if parse else request, context)
        except Exception as error:  # noqa: BLE001 - the boundary of a call
            await _abort(context, error)

    return answer


def _streaming(behaviour: Any, parse: Callable[[bytes], Any] | None) -> Any:
    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            found = behaviour(parse(request) if parse else request, context)
            if inspect.isawaitable(found):
                await found  # it writes to the context itself
                return
            async for response in found:
                yield response
        except Exception as error:  # noqa: BLE001 - the boundary of a call
            await _abort(context, error)

    return stream


async def _abort(context: Context, error: Exception) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError):
        raise error  # the handler has ended the call itself
    if isinstance(error, DecodeError):
        why = "the message cannot be read: send the one that this method takes"
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, why)
    log.error("a call failed", exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error, see the server's log")

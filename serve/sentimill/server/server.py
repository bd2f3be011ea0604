"""The gRPC server: its options, its services with health and reflection, and its drain."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sentimill.server.addresses import host_port, port_busy
from sentimill.server.error_interceptor import ErrorInterceptor
from sentimill.server.request_handler import RequestHandler
from sentimill.server.sentiment_service import SERVICE, SentimentService
from sentimill.server.settings import Serve

_LEAST_PING_MS: Final = 5_000
"""Clients may ping this often, even without calls. Go and Java ping every 10 s at most. gRPC's own
default would close the connection of a client that pings more often than every 5 minutes."""

_IDENTITY_ONLY: Final = 1
"""Bit set of accepted compressions. 8 KB of gzip can hold 8 MB of items."""


class GrpcServer:
    """Serves the requests that *handler* answers. For the event loop's thread."""

    def __init__(self, handler: RequestHandler, settings: Serve) -> None:
        """Bind the port. Raises UsageError when it is taken."""
        self._handler = handler
        self._settings = settings
        self._health = health.aio.HealthServicer()
        self._sentiment = SentimentService(handler, version=version("sentimill"))
        services = [self._sentiment.handler()]
        self._names = [SERVICE]
        if settings.open_inference:
            # Imported only here: a process cannot load two copies of the protocol.
            from sentimill.server import open_inference_service as open_inference

            other = open_inference.OpenInferenceService(handler, version=version("sentimill"))
            services.append(other.handler())
            self._names.append(open_inference.SERVICE)
        self._server = grpc.aio.server(
            options=self._options(),
            interceptors=[ErrorInterceptor(handler.boundary, self._names)],
            maximum_concurrent_rpcs=handler.limits.max_calls,
        )
        self._server.add_generic_rpc_handlers(services)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.reflection:
            names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._server)
        self.port = self._take_port()

    async def start(self) -> None:
        """Answer calls from now on, and report healthy."""
        await self._server.start()
        await self.set_healthy(True)

    async def set_healthy(self, healthy: bool) -> None:
        """Set the state in `grpc.health.v1`, for the server and each of its services."""
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if healthy else states.NOT_SERVING
        for name in ("", *self._names):
            await self._health.set(name, state)

    async def drain(self) -> None:
        """Report unhealthy, answer for `notice_seconds` more, then finish within `drain_seconds`.

        The notice gives load balancers that ask for health the time to send calls elsewhere, so no
        caller notices the stop.
        """
        self._handler.leaving = True
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.notice_seconds)
        self._sentiment.drain()
        await self._server.stop(self._settings.drain_seconds)

    def _options(self) -> list[tuple[str, int]]:
        settings = self._settings
        options = [
            # Without this a second server on the same port would silently take half of the calls.
            ("grpc.so_reuseport", int(settings.shared_port)),
            ("grpc.max_receive_message_length", self._handler.limits.max_request_bytes),
            # The idle streams of one connection must not use up all calls of the server.
            ("grpc.max_concurrent_streams", self._handler.limits.connection_calls),
            ("grpc.http2.min_ping_interval_without_data_ms", _LEAST_PING_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            # A caller that vanished is noticed, and its waiting texts are dropped.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
        ]
        if not settings.compression:
            options.append(("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY))
        if settings.max_connection_age_seconds is not None:
            # Clients that keep a connection for ever would never see a new replica.
            age_ms = round(1000 * settings.max_connection_age_seconds)
            options.append(("grpc.max_connection_age_ms", age_ms))
            grace_ms = round(1000 * settings.drain_seconds)
            options.append(("grpc.max_connection_age_grace_ms", grace_ms))
        return options

    def _take_port(self) -> int:
        settings = self._settings
        address = host_port(settings.host, settings.port)
        try:
            if settings.tls is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, settings.tls.credentials())
        except RuntimeError as error:
            raise port_busy(settings.host, settings.port) from error

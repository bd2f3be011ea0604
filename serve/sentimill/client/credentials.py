"""How a client proves who it is, and how it checks who the server is: TLS and tokens."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc

from sentimill.client.channel import CHANNEL_OPTIONS


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
            return grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        return grpc.secure_channel(address, self._credentials(), options=CHANNEL_OPTIONS)

    def aio_channel(self, address: str) -> grpc.aio.Channel:
        """Return a channel for asyncio. Call it in the event loop that will use the channel."""
        if not self.tls:
            return grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
        return grpc.aio.secure_channel(address, self._credentials(), options=CHANNEL_OPTIONS)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of each call: the token, where there is one."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)

    def _credentials(self) -> grpc.ChannelCredentials:
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)

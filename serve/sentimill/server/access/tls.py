"""The server's certificates: read at the start, and again when their files change."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc

from sentimill.errors import UsageError
from sentimill.server.access.file_watcher import FileWatcher

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """PEM files. client_ca: the authority that signs the certificates of callers (mutual TLS)."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow the files. Raises UsageError when they do not load."""
        files = FileWatcher(path for path in (self.certificate, self.key, self.client_ca) if path)
        lock = threading.Lock()  # gRPC asks at every handshake, from its own threads

        def changed() -> grpc.ServerCertificateConfiguration | None:
            with lock:
                if not files.changed():
                    return None
                try:
                    found = self.read()
                except UsageError as error:
                    # Certificate and key are replaced one by one: they fit after the second change.
                    log.warning("the old certificates stay in use: %s", error)
                    return None
                log.info("new certificates are in use")
                return found

        return grpc.dynamic_ssl_server_credentials(
            self.read(),
            # None means no change; the stubs do not say so.
            cast(Callable[[], grpc.ServerCertificateConfiguration], changed),
            require_client_authentication=self.client_ca is not None,
        )

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Read the files as they are now. Raises UsageError when they do not load together."""
        try:
            load_certificates(self.client_ca, self.certificate, self.key)
            roots = None if self.client_ca is None else self.client_ca.read_bytes()
            pair = (self.key.read_bytes(), self.certificate.read_bytes())
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise UsageError(
                f"the certificate {self.certificate} and the key {self.key} do not load: {error}",
                reason="BAD_CERTIFICATE",
            ) from error
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)


def load_certificates(ca: Path | None, certificate: Path | None, key: Path | None) -> None:
    """Load PEM files with OpenSSL, which says what is wrong with them; gRPC does not.

    Raises OSError or ValueError.
    """

    def no_password() -> str:  # without this, OpenSSL would ask on the terminal and wait
        raise ValueError("the key is encrypted: give one that is not")

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate is not None:
        context.load_cert_chain(certificate, key, password=no_password)
    if ca is not None:
        context.load_verify_locations(ca)

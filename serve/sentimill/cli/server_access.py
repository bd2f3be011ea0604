"""The credentials that a command shows to a server: TLS certificates and a token.

A token comes from a file or from SENTIMILL_TOKEN and never from an option, because every user of
the machine can read the options of a running program.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from sentimill.cli.options import Secured
from sentimill.errors import UsageError
from sentimill.server.addresses import is_loopback

if TYPE_CHECKING:
    from sentimill.client.channel import Security  # importing gRPC takes a while

_TOKEN_VARIABLE: Final = "SENTIMILL_TOKEN"

_TARGET: Final = re.compile(r"^(?:dns:(?://[^/]*/)?|ipv[46]:)?(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAccess:
    """How to reach a server. Every file is PEM, except the token file."""

    tls: Annotated[
        bool,
        Secured(
            "--tls", help="Use TLS and verify the server against the system's CA certificates."
        ),
    ] = False
    tls_ca: Annotated[
        Path | None,
        Secured(help="Use TLS and verify the server against these CA certificates (PEM)."),
    ] = None
    tls_cert: Annotated[Path | None, Secured(help="Client certificate for mutual TLS (PEM).")] = (
        None
    )
    tls_key: Annotated[Path | None, Secured(help="Its private key, unencrypted (PEM).")] = None
    token_file: Annotated[
        Path | None, Secured(help="File that holds the token.", show_default=f"${_TOKEN_VARIABLE}")
    ] = None

    def security(self, server: str | None) -> Security | None:
        """Read the files and return the credentials for *server*; None if it needs none.

        Raises UsageError for a file that is missing or does not load, for options that do not go
        together, and if a token would leave this machine without encryption.
        """
        named = self.tls_ca or self.tls_cert or self.tls_key
        if server is None:
            if self.tls or named or self.token_file:
                why = "--tls, --tls-ca, --tls-cert, --tls-key and --token-file go with --server"
                raise UsageError(why, reason="NO_SERVER")
            return None
        if (self.tls_cert is None) != (self.tls_key is None):
            why = "give --tls-cert and --tls-key together"
            raise UsageError(why, reason="BAD_TLS")
        tls = self.tls or named is not None
        token = self._token()
        if token is not None and not tls and not _stays_here(server):
            raise UsageError(
                f"a token would travel to {server} unencrypted: add --tls, or --tls-ca with the"
                " certificate of the authority that signed the server's",
                reason="TOKEN_IN_CLEAR",
            )
        if not tls and token is None:
            return None
        from sentimill.client.channel import Security
        from sentimill.server.access.tls import load_certificates

        paths = (self.tls_ca, self.tls_cert, self.tls_key)
        ca, certificate, key = (None if path is None else _read(path) for path in paths)
        try:
            load_certificates(*paths)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            names = ", ".join(str(path) for path in paths if path)
            why = f"{names}: not certificates, or the key is another certificate's ({error})"
            raise UsageError(why, reason="BAD_CERTIFICATE") from error
        return Security(tls=tls, ca=ca, certificate=certificate, key=key, token=token)

    def _token(self) -> str | None:
        if self.token_file is not None:
            source = str(self.token_file)
            text = _read(self.token_file).decode("utf-8", "replace").strip()
        else:
            source = _TOKEN_VARIABLE
            text = os.environ.get(_TOKEN_VARIABLE, "").strip()
            if not text:
                return None
        if not text or not re.fullmatch(r"[!-~]+", text):
            why = f"{source} does not hold a token: one word, as `sentimill token` printed it"
            raise UsageError(why, reason="BAD_TOKEN")
        return text


def _stays_here(server: str) -> bool:
    """Return whether a gRPC target is this machine."""
    if server.startswith("unix:"):
        return True
    found = _TARGET.match(server)
    assert found is not None
    return all(is_loopback(part.rpartition(":")[0].strip("[]")) for part in found[1].split(","))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = f"{path} cannot be read ({error.strerror}): name an existing file"
        raise UsageError(why, reason="NO_SUCH_FILE") from error

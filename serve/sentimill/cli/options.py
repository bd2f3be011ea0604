"""Options that commands share: which model answers, in what batches, how a server is known.

A token comes from a file or from SENTIMILL_TOKEN and never from a flag, which every user of the
machine can read.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sentimill.engine.base import Precision, Provider
from sentimill.errors import UsageError

if TYPE_CHECKING:
    from sentimill.client.credentials import Security  # gRPC takes a while to load

__all__ = [
    "Access",
    "BatchTokensOption",
    "BundleOption",
    "PrecisionOption",
    "ProviderOption",
    "ServerOption",
    "ThreadsOption",
    "TlsCaOption",
    "TlsCertOption",
    "TlsKeyOption",
    "TlsOption",
    "TokenFileOption",
    "one_model",
]

TOKEN_VARIABLE: Final = "SENTIMILL_TOKEN"

BatchTokensOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="padded tokens (rows times longest) in one engine call",
        show_default="512 on a CPU, 32,768 on a GPU",
    ),
]
BundleOption = Annotated[
    Path | None,
    typer.Option(
        "--bundle",
        envvar="SENTIMILL_BUNDLE",
        help="folder written by train",
        show_default="the reference student",
    ),
]
PrecisionOption = Annotated[
    Precision, typer.Option(help="auto takes the fastest that the bundle lists and this CPU has")
]
ProviderOption = Annotated[
    Provider, typer.Option(help="where to run; auto takes CUDA where ONNX Runtime has it")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads of the engine", show_default="all cores")
]
ServerOption = Annotated[
    str | None, typer.Option(help="host:port of a running server to ask instead of a bundle")
]
TlsOption = Annotated[
    bool, typer.Option("--tls", help="encrypt, and trust the authorities that all trust")
]
TlsCaOption = Annotated[
    Path | None, typer.Option(help="PEM certificates of the authority to trust instead; with TLS")
]
TlsCertOption = Annotated[
    Path | None, typer.Option(help="PEM certificate to show to the server (mTLS)")
]
TlsKeyOption = Annotated[Path | None, typer.Option(help="its PEM key, not encrypted")]
TokenFileOption = Annotated[
    Path | None,
    typer.Option(help="file that holds the token", show_default=f"${TOKEN_VARIABLE}"),
]

_TARGET: Final = re.compile(r"^(?:dns:(?://[^/]*/)?|ipv[46]:)?(.*)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the options gave. The files are PEM, but for the token's."""

    tls: bool = False
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    token_file: Path | None = None

    def security(self, server: str | None) -> Security | None:
        """Read the files and return what a client needs for *server*; None for a bare connection.

        Raises UsageError for a file that is missing or does not load, for options that do not go
        together, and where a token would leave this machine without encryption.
        """
        named = self.ca or self.certificate or self.key
        if server is None:
            if self.tls or named or self.token_file:
                why = "--tls, --tls-ca, --tls-cert, --tls-key and --token-file go with --server"
                raise UsageError(why, reason="NO_SERVER")
            return None
        if (self.certificate is None) != (self.key is None):
            why = "--tls-cert and --tls-key are given together"
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
        from sentimill.client.credentials import Security

        self._check_certificates()
        ca, certificate, key = (
            None if path is None else _read(path) for path in (self.ca, self.certificate, self.key)
        )
        return Security(tls=tls, ca=ca, certificate=certificate, key=key, token=token)

    def _token(self) -> str | None:
        if self.token_file is not None:
            source = str(self.token_file)
            text = _read(self.token_file).decode("utf-8", "replace").strip()
        else:
            source = TOKEN_VARIABLE
            text = os.environ.get(TOKEN_VARIABLE, "").strip()
            if not text:
                return None
        if not text or not re.fullmatch(r"[!-~]+", text):
            why = f"{source} does not hold a token: one word, as `sentimill token` printed it"
            raise UsageError(why, reason="BAD_TOKEN")
        return text

    def _check_certificates(self) -> None:
        """Load the files as OpenSSL does, which says what is wrong with them; gRPC does not."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if self.ca is not None:
                context.load_verify_locations(cadata=_read(self.ca).decode("ascii"))
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            names = ", ".join(str(path) for path in (self.ca, self.certificate, self.key) if path)
            why = f"{names}: not certificates, or not the certificate's key ({error})"
            raise UsageError(why, reason="BAD_CERTIFICATE") from error


def one_model(context: typer.Context, bundle: Path | None, server: str | None) -> Path | None:
    """Return the bundle that the options name, None where they name a server or nothing.

    Raises:
        UsageError: NO_MODEL, they name both. A flag goes before a variable, which is no mistake.
    """
    if server is None:
        return bundle
    origin = context.get_parameter_source("bundle")
    if bundle is not None and (origin is None or origin.name != "ENVIRONMENT"):
        why = "name one model: either --bundle FOLDER or --server HOST:PORT"
        raise UsageError(why, reason="NO_MODEL")
    return None


def _stays_here(server: str) -> bool:
    """Return whether a gRPC target is this machine."""
    if server.startswith("unix:"):
        return True
    found = _TARGET.match(server)
    assert found is not None
    return all(_is_loopback(part.rpartition(":")[0].strip("[]")) for part in found[1].split(","))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        why = f"{path} cannot be read ({error.strerror}): name a file that is there"
        raise UsageError(why, reason="NO_SUCH_FILE") from error


def _no_password() -> str:
    raise ValueError("the key is encrypted: give one that is not")

"""TLS and tokens, over real sockets: who is let in, and certificates that change."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from certificates import authority, signed
from cli_in_process import Sentimill
from sentimill import AsyncClient, Client, Prediction, Security
from sentimill.errors import AuthError, QuotaError, SentimillError, UnavailableError, UsageError
from sentimill.server.access.auth import new_token
from sentimill.server.access.tls import Tls
from sentimill.server.lifecycle import start
from sentimill.server.settings import Serve


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two authorities and what each signed."""
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("one", "two"):
        ca = authority(folder, name)
        signed(folder, f"{name}-server", ca)
        signed(folder, f"{name}-client", ca)
    return folder


@asynccontextmanager
async def served(config: Serve) -> AsyncIterator[str]:
    """Run a whole server in this event loop and give its address."""
    async with AsyncExitStack() as stack:
        yield (await start(config, stack)).address


def tls(folder: Path, name: str = "one", *, mutual: bool = False) -> Tls:
    """Return the server's settings with the certificates of the authority *name*."""
    return Tls(
        certificate=folder / f"{name}-server.pem",
        key=folder / f"{name}-server.key",
        client_ca=folder / f"{name}.pem" if mutual else None,
    )


async def label(address: str, security: Security | None) -> str:
    """Classify one text over a connection of its own."""
    async with AsyncClient(address, security=security) as client:
        (found,) = await client.classify(["good"])
    assert isinstance(found, Prediction)
    return found.label


async def test_calls_are_encrypted_and_the_server_is_known(
    bundle: Path, certificates: Path
) -> None:
    """A client that trusts another authority, or speaks without TLS, gets nowhere."""
    config = Serve(bundle=bundle, port=0, metrics_port=0, tls=tls(certificates))
    async with served(config) as address:
        assert await label(address, Security(ca=(certificates / "one.pem").read_bytes())) == (
            "positive"
        )
        for wrong in (None, Security(ca=(certificates / "two.pem").read_bytes())):
            with pytest.raises(UnavailableError):
                await label(address, wrong)


async def test_an_address_for_everybody_is_served_with_tls(
    bundle: Path, certificates: Path
) -> None:
    """It needs no leave: calls are encrypted."""
    config = Serve(bundle=bundle, host="0.0.0.0", port=0, metrics_port=0, tls=tls(certificates))
    async with served(config) as address:
        security = Security(ca=(certificates / "one.pem").read_bytes())
        assert await label(f"127.0.0.1:{address.rpartition(':')[2]}", security) == "positive"


async def test_with_a_client_authority_only_its_callers_come_in(
    bundle: Path, certificates: Path
) -> None:
    """mTLS: no certificate, or one of another authority, is refused before any call."""
    ca = (certificates / "one.pem").read_bytes()
    config = Serve(bundle=bundle, port=0, metrics_port=0, tls=tls(certificates, mutual=True))

    def shown(name: str) -> Security:
        pair = [(certificates / f"{name}-client.{end}").read_bytes() for end in ("pem", "key")]
        return Security(ca=ca, certificate=pair[0], key=pair[1])

    async with served(config) as address:
        assert await label(address, shown("one")) == "positive"
        for wrong in (Security(ca=ca), shown("two")):
            with pytest.raises(UnavailableError):
                await label(address, wrong)


async def test_a_new_certificate_is_used_without_a_restart(
    bundle: Path, certificates: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the two files' changes the old pair serves on, and nothing is refused."""
    used = Tls(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")

    def put(source: str, target: Path) -> None:
        target.write_bytes((certificates / source).read_bytes())

    put("one-server.pem", used.certificate)
    put("one-server.key", used.key)
    old, new = (Security(ca=(certificates / f"{n}.pem").read_bytes()) for n in ("one", "two"))
    async with served(Serve(bundle=bundle, port=0, metrics_port=0, tls=used)) as address:
        assert await label(address, old) == "positive"
        put("two-server.pem", used.certificate)
        with caplog.at_level(logging.WARNING):
            assert await label(address, old) == "positive"
        put("two-server.key", used.key)
        assert await label(address, new) == "positive"

    assert "the old certificates stay in use" in caplog.text


def test_certificates_that_do_not_fit_stop_the_start(certificates: Path, tmp_path: Path) -> None:
    """With the files' names."""
    wrong = Tls(certificate=certificates / "one-server.pem", key=certificates / "two-server.key")
    missing = Tls(certificate=certificates / "one-server.pem", key=tmp_path / "none")
    for settings in (wrong, missing):
        with pytest.raises(UsageError, match=r"one-server\.pem and the key .* do not load"):
            settings.credentials()


@pytest.mark.parametrize("given", [["--tls-cert"], ["--tls-key"], ["--tls-client-ca"]])
def test_half_of_a_pair_is_refused(sentimill: Sentimill, bundle: Path, given: list[str]) -> None:
    """Before anything listens."""
    run = sentimill("serve", "--bundle", bundle, *given, "x.pem")

    assert (run.code, "--tls-key together" in run.error) == (2, True)


async def test_tokens_let_their_callers_in_and_hold_them_to_their_quota(
    bundle: Path, tmp_path: Path
) -> None:
    """Each method asks for one; health does not, for probes have none."""
    (web, first), (batch, second) = new_token("web", None), new_token("batch", 1.0)
    path = tmp_path / "tokens"
    path.write_text(f"{first}\n{second}\n")
    config = Serve(bundle=bundle, port=0, metrics_port=0, tokens=path)
    async with served(config) as address:
        assert await label(address, Security(tls=False, token=web)) == "positive"
        for wrong in (None, Security(tls=False, token="x")):
            async with AsyncClient(address, security=wrong) as client:
                for call in (client.model(), client.classify(["good"])):
                    with pytest.raises(AuthError):
                        await call
        async with AsyncClient(address, security=Security(tls=False, token=batch)) as client:
            assert len(await client.classify(["good"] * 64)) == 64
            with pytest.raises(QuotaError, match="try again in"):
                await client.classify(["good"])
        assert await label(address, Security(tls=False, token=web)) == "positive"


def test_secrets_are_not_shown() -> None:
    """In a log or a debugger."""
    shown = repr(Security(key=b"private", token="secret"))

    assert "private" not in shown
    assert "secret" not in shown


def test_errors_of_tls_are_ours() -> None:
    """A certificate that is none is not an exception of gRPC."""
    wrong = Security(ca=b"nonsense")
    with Client("127.0.0.1:1", security=wrong) as client, pytest.raises(SentimillError):
        client.classify(["good"])

"""How `classify` and `score` show a server who they are, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import authority, openssl, signed
from cli_in_process import Run, Sentimill
from live_server import live_server
from sentimill.cli.server_access import ServerAccess
from sentimill.errors import UsageError
from sentimill.server.access.auth import new_token
from sentimill.server.access.tls import Tls
from sentimill.server.settings import Serve


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with certificates of two authorities, a token, and its line for a server."""
    folder = tmp_path_factory.mktemp("access")
    for name in ("one", "two"):
        ca = authority(folder, name)
        signed(folder, f"{name}-server", ca)
        signed(folder, f"{name}-client", ca)
    token, line = new_token("web", None)
    (folder / "token").write_text(token + "\n")
    (folder / "stranger").write_text("nobody-knows-this-one\n")
    (folder / "tokens").write_text(line + "\n")
    (folder / "empty").touch()
    (folder / "in.csv").write_text("text\ngood\nbad\n")
    key = folder / "one-client.key"
    openssl("pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out", folder / "locked.key")
    return folder


@pytest.fixture(scope="module")
def address(files: Path, bundle: Path) -> Iterator[str]:
    """Return the address of a server that wants a certificate and a token."""
    tls = Tls(
        certificate=files / "one-server.pem",
        key=files / "one-server.key",
        client_ca=files / "one.pem",
    )
    tokens = files / "tokens"
    config = Serve(bundle=bundle, port=0, metrics_port=0, threads=1, tls=tls, tokens=tokens)
    with live_server(config) as serving:
        yield serving.address


class Asker:
    """One of the two commands, to be given the options that show who asks."""

    def __init__(self, sentimill: Sentimill, command: str, address: str, folder: Path) -> None:
        self._sentimill = sentimill
        self._start: list[str | Path] = [command, "good", "bad"]
        if command == "score":
            (folder / "in.csv").write_text("text\ngood\nbad\n")
            self._start = [command, folder / "in.csv", folder / "out.csv", "--overwrite"]
        self._start += ["--server", address]

    def __call__(self, *options: str | Path) -> Run:
        """Run it."""
        return self._sentimill(*self._start, *options)


@pytest.fixture(params=["classify", "score"])
def ask(
    request: pytest.FixtureRequest, sentimill: Sentimill, tmp_path: Path, address: str
) -> Asker:
    """Return either command."""
    return Asker(sentimill, request.param, address, tmp_path)


def shown(files: Path, *, client: str = "one", ca: str = "one") -> list[str | Path]:
    """Return the options for the certificates."""
    certificate, key = files / f"{client}-client.pem", files / f"{client}-client.key"
    return ["--tls-ca", files / f"{ca}.pem", "--tls-cert", certificate, "--tls-key", key]


@pytest.mark.slow
def test_certificate_and_token_open_the_door(
    ask: Asker, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token from a file or from the variable; the file goes before it."""
    assert ask(*shown(files), "--token-file", files / "token").code == 0

    monkeypatch.setenv("SENTIMILL_TOKEN", (files / "token").read_text().strip())

    assert ask(*shown(files)).code == 0
    refused = ask(*shown(files), "--token-file", files / "stranger")
    assert refused.code == 2
    assert "token" in refused.error
    assert "nobody-knows" not in refused.err


def test_no_token_is_refused_at_once(ask: Asker, files: Path) -> None:
    """With the server's own words."""
    run = ask(*shown(files))

    assert run.code == 2
    assert "authorization: Bearer" in run.error


def test_a_server_that_is_not_trusted_is_named_as_such(ask: Asker, files: Path) -> None:
    """And is not waited for: it will not change."""
    run = ask(*shown(files, ca="two"), "--token-file", files / "token")

    assert run.code == 1
    assert "not signed by an authority that this client trusts" in run.error


@pytest.mark.slow
@pytest.mark.parametrize("client", [None, "two"])
def test_a_client_that_is_not_trusted_learns_what_it_may_be(
    sentimill: Sentimill, files: Path, address: str, client: str | None
) -> None:
    """GRPC only says that the connection was closed."""
    options = shown(files, client=client) if client else ["--tls-ca", files / "one.pem"]
    run = sentimill("classify", "good", "--server", address, *options)

    assert run.code == 1
    assert "not know the client's certificate (--tls-cert)" in run.error


def test_a_server_without_tls_is_named_as_such(
    sentimill: Sentimill, files: Path, bundle: Path
) -> None:
    """A token never reaches it."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        run = sentimill("classify", "good", "--server", serving.address, *shown(files))

    assert run.code == 1
    assert "does not use TLS" in run.error


@pytest.mark.parametrize(
    ("access", "reason"),
    [
        (ServerAccess(tls_ca=Path("none.pem")), "NO_SUCH_FILE"),
        (ServerAccess(token_file=Path("none")), "NO_SUCH_FILE"),
        (ServerAccess(tls_cert=Path("one-client.pem")), "BAD_TLS"),
        (ServerAccess(tls_key=Path("one-client.key")), "BAD_TLS"),
        (ServerAccess(tls_ca=Path("token")), "BAD_CERTIFICATE"),
        (
            ServerAccess(tls_cert=Path("one-client.pem"), tls_key=Path("two-client.key")),
            "BAD_CERTIFICATE",
        ),
        (
            ServerAccess(tls_cert=Path("one-client.pem"), tls_key=Path("locked.key")),
            "BAD_CERTIFICATE",
        ),
        (ServerAccess(token_file=Path("in.csv")), "BAD_TOKEN"),
        (ServerAccess(token_file=Path("empty")), "BAD_TOKEN"),
    ],
    ids=str,
)
def test_files_that_do_not_do_are_refused_before_any_call(
    files: Path, monkeypatch: pytest.MonkeyPatch, access: ServerAccess, reason: str
) -> None:
    """The message names the file, and never what is in it."""
    monkeypatch.chdir(files)

    with pytest.raises(UsageError) as caught:
        access.security("localhost:1")

    assert caught.value.reason == reason
    assert "good" not in str(caught.value)


def test_options_for_a_server_need_one(sentimill: Sentimill, bundle: Path, files: Path) -> None:
    """Or somebody would think that they did something."""
    run = sentimill("classify", "good", "--bundle", bundle, "--tls-ca", files / "one.pem")

    assert (run.code, "go with --server" in run.error) == (2, True)


@pytest.mark.parametrize(
    ("server", "here"),
    [
        ("localhost:50051", True),
        ("127.0.0.2:50051", True),
        ("[::1]:50051", True),
        ("ipv6:[::1]:50051", True),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", True),
        ("unix:/run/sentimill.sock", True),
        ("dns:///localhost:50051", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("10.0.0.1:50051", False),
        ("localhost.example.com:50051", False),
        ("dns:///sentimill.internal:50051", False),
        ("0.0.0.0:50051", False),
    ],
)
def test_a_token_does_not_leave_the_machine_in_clear(
    files: Path, server: str, *, here: bool
) -> None:
    """On it there is nobody in between."""
    access = ServerAccess(token_file=files / "token")
    if here:
        found = access.security(server)
        assert found is not None
        assert (found.tls, found.token) == (False, (files / "token").read_text().strip())
    else:
        with pytest.raises(UsageError, match="unencrypted"):
            access.security(server)
        assert ServerAccess(tls=True, token_file=files / "token").security(server) is not None


def test_the_variable_alone_is_held_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """And is nothing to a command that asks no server."""
    monkeypatch.setenv("SENTIMILL_TOKEN", "a-token")

    assert ServerAccess().security(None) is None
    with pytest.raises(UsageError, match="unencrypted"):
        ServerAccess().security("10.0.0.1:50051")

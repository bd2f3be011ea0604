"""Callers: tokens, their file, and quotas."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from cli_in_process import Sentimill
from sentimill.errors import AuthError, QuotaError, UsageError
from sentimill.server.access.auth import Caller, TokenAuth, new_token


class Clock:
    """Time that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def bearer(token: str) -> list[tuple[str, str | bytes]]:
    """Return the metadata that show *token*."""
    return [("user-agent", "x"), ("authorization", f"Bearer {token}")]


def test_a_token_names_its_caller(tmp_path: Path) -> None:
    """Each in its own line, with its own quota."""
    (one, first), (two, second) = new_token("web", None), new_token("batch", 2.5)
    path = tmp_path / "tokens"
    path.write_text(f"# who may call\n\n{first}\n{second}\n")

    callers = TokenAuth(path)

    assert callers.identify(bearer(one)).name == "web"
    assert callers.identify(bearer(two)).texts_per_second == 2.5
    assert one not in path.read_text()


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "TOKEN_MISSING"),
        ([("authorization", "Basic eDp5")], "TOKEN_MISSING"),
        ([("authorization", b"Bearer x")], "TOKEN_MISSING"),
        (bearer(""), "TOKEN_UNKNOWN"),
        (bearer("guess"), "TOKEN_UNKNOWN"),
    ],
)
def test_who_is_not_known_is_refused(
    tmp_path: Path, metadata: list[tuple[str, str | bytes]], reason: str
) -> None:
    """And what was shown is not repeated."""
    path = tmp_path / "tokens"
    path.write_text(new_token("web", None)[1])

    with pytest.raises(AuthError) as caught:
        TokenAuth(path).identify(metadata)

    assert caught.value.reason == reason
    assert "guess" not in str(caught.value)


def test_the_hash_itself_is_no_token(tmp_path: Path) -> None:
    """Who reads the file cannot call."""
    _, line = new_token("web", None)
    path = tmp_path / "tokens"
    path.write_text(line)

    with pytest.raises(AuthError):
        TokenAuth(path).identify(bearer(line.split()[1]))


@pytest.mark.parametrize("line", ["web", "web 12ab", "a b c d", f"web {'0' * 64} fast", "web \xff"])
def test_a_line_that_is_no_token_is_named_and_not_shown(tmp_path: Path, line: str) -> None:
    """It may be a token that was put there by mistake."""
    path = tmp_path / "tokens"
    path.write_text(f"{new_token('web', None)[1]}\n{line}\n")

    with pytest.raises(UsageError, match=r"line 2 of .*: make one with") as caught:
        TokenAuth(path)

    assert line not in str(caught.value)


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    """A server without its tokens would let everybody in, or nobody."""
    with pytest.raises(UsageError, match="cannot be read"):
        TokenAuth(tmp_path / "none")


@pytest.mark.parametrize("content", ["", "\n# nobody yet\n"])
def test_a_file_without_a_caller_stops_the_start(tmp_path: Path, content: str) -> None:
    """Every call would be refused; while the server runs, it withdraws all tokens."""
    token, line = new_token("web", None)
    clock, path = Clock(), tmp_path / "tokens"
    path.write_text(content)
    with pytest.raises(UsageError, match=r"names no caller.* `sentimill token NAME 2>> ") as caught:
        TokenAuth(path)
    assert caught.value.reason == "BAD_TOKENS"

    path.write_text(line)
    callers = TokenAuth(path, clock)
    path.write_text(content)
    clock.now += 1
    with pytest.raises(AuthError):
        callers.identify(bearer(token))


def test_a_change_of_the_file_is_seen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Within a second; a broken file changes nothing; a quota that is used up stays so."""
    clock, path = Clock(), tmp_path / "tokens"
    (one, first), (two, second) = new_token("web", 1.0), new_token("batch", None)
    path.write_text(first)
    callers = TokenAuth(path, clock)
    callers.identify(bearer(one)).spend(1000, clock.now)

    path.write_text(f"{first}\n{second}\n")
    with pytest.raises(AuthError):
        callers.identify(bearer(two))
    clock.now += 1
    assert callers.identify(bearer(two)).name == "batch"
    with pytest.raises(QuotaError):
        callers.identify(bearer(one)).spend(1, clock.now)

    path.write_text("broken")
    clock.now += 1
    with caplog.at_level(logging.ERROR):
        assert callers.identify(bearer(two)).name == "batch"
    assert "the old ones stay valid" in caplog.text

    path.write_text(first)
    clock.now += 1
    with pytest.raises(AuthError):
        callers.identify(bearer(two))


def spent(caller: Caller, clock: Clock, texts: int) -> bool:
    """Say whether *texts* were let through."""
    try:
        caller.spend(texts, clock.now)
    except QuotaError:
        return False
    return True


def test_a_quota_holds_over_time_and_no_request_is_too_large_for_it(tmp_path: Path) -> None:
    """10 texts a second, asked for 64 at a time without a pause, are 10 texts a second."""
    clock, path = Clock(), tmp_path / "tokens"
    token, line = new_token("batch", 10.0)
    path.write_text(line)
    caller = TokenAuth(path, clock).identify(bearer(token))

    passed = 0
    for _ in range(10_000):  # 1,000 seconds
        passed += 64 * spent(caller, clock, 64)
        clock.now += 0.1

    assert passed == pytest.approx(10 * 1000, rel=0.02)


def test_a_used_up_quota_says_when_to_come_back() -> None:
    """And then it is so."""
    clock = Clock()
    caller = Caller("batch", "", 2.0, 2.0, clock.now)
    assert spent(caller, clock, 10)

    with pytest.raises(QuotaError, match=r"2 texts a second: try again in 4\.1 s") as caught:
        caller.spend(1, clock.now)

    assert caught.value.reason == "QUOTA_EXCEEDED"
    clock.now += 4.1
    assert spent(caller, clock, 1)


def test_a_quota_of_nothing_lets_nothing_through(tmp_path: Path) -> None:
    """However long it waits, so it is not told when to come back."""
    clock, path = Clock(), tmp_path / "tokens"
    token, line = new_token("batch", 0.0)
    path.write_text(line)
    caller = TokenAuth(path, clock).identify(bearer(token))
    clock.now += 1000

    with pytest.raises(QuotaError, match=r"its 0 texts a second$") as caught:
        caller.spend(1, clock.now)

    assert caught.value.reason == "QUOTA_EXCEEDED"


@pytest.mark.parametrize(("spend", "left"), [(5, 15.0), (50, -30.0)])
def test_what_was_refused_is_given_back(spend: int, left: float) -> None:
    """It is as if it had not been asked for, and never more than a quiet caller has."""
    caller = Caller("batch", "", 2.0, 20.0, 100.0)
    caller.spend(spend, 100.0)
    assert caller.left == left

    caller.give_back(spend)
    assert caller.left == 20.0

    caller.give_back(1)
    assert caller.left == 20.0


@pytest.mark.parametrize("make", [lambda: new_token("a b", None), lambda: new_token("#a", None)])
def test_a_name_that_would_break_the_file_is_refused(make: Callable[[], object]) -> None:
    """It would be read as something else."""
    with pytest.raises(UsageError, match="without blanks"):
        make()


def test_the_command_gives_a_token_and_its_line(sentimill: Sentimill, tmp_path: Path) -> None:
    """The secret alone is on stdout, for a pipe; a long name does not break its line in two."""
    name = "the-callers-of-the-web-shop-in-the-second-region"
    run = sentimill("token", name, "--texts-per-second", "50")

    path = tmp_path / "tokens"
    path.write_text(run.err)
    caller = TokenAuth(path).identify(bearer(run.out.strip()))
    assert (run.code, caller.name, caller.texts_per_second) == (0, name, 50.0)


def test_a_worker_grants_its_share_of_a_quota(tmp_path: Path) -> None:
    """Workers do not share what they count, so together they grant the quota and no more."""
    clock, path = Clock(), tmp_path / "tokens"
    token, line = new_token("web", 10.0)
    path.write_text(line)
    caller = TokenAuth(path, clock, share=0.25).identify(bearer(token))

    assert caller.texts_per_second == 2.5


@pytest.mark.parametrize(("mode", "warned"), [(0o666, True), (0o664, False), (0o600, False)])
def test_a_file_that_everybody_may_write_is_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    """Whoever may write it may admit callers."""
    path = tmp_path / "tokens"
    path.write_text(new_token("web", None)[1])
    path.chmod(mode)
    TokenAuth(path)

    assert ("chmod o-w" in caplog.text) == warned

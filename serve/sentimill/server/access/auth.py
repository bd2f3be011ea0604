"""Authentication and quotas: bearer tokens from a file of their hashes, each with a rate limit.

The file has one caller per line, ``NAME SHA256 [TEXTS_PER_SECOND]``. Blank lines and lines that
begin with # are ignored. `sentimill token NAME` makes a token and its line. A token has 256 random
bits, so a plain SHA-256 of it is as good as a slow hash: there is nothing to guess.
"""

from __future__ import annotations

import hmac
import logging
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from sentimill.errors import AuthError, QuotaError, UsageError
from sentimill.server.access.file_watcher import FileWatcher

log = logging.getLogger(__name__)

_LINE: Final = re.compile(r"(\S+)\s+([0-9a-f]{64})(?:\s+(\d+(?:\.\d+)?))?")
_PREFIX: Final = "Bearer "
_BURST_SECONDS: Final = 10.0
"""A caller that sent nothing for a while may use this many seconds of its quota at once."""

_CHECK_SECONDS: Final = 1.0
"""How often the file is checked for changes."""


@dataclass(eq=False, slots=True)
class Caller:
    """One caller and what is left of its quota.

    texts_per_second: None for no limit, 0 for no texts at all. While *left* is above 0, a request
    of any size passes and *left* may become negative. It has to be above 0 again before the next
    request: so the rate holds, and no request is too large to pass.
    """

    name: str
    digest: str = ""
    texts_per_second: float | None = None
    left: float = 0.0
    at: float = 0.0

    def spend(self, texts: int, now: float) -> None:
        """Take *texts* from the quota; *now* in seconds. Raises QuotaError when it is used up."""
        rate = self.texts_per_second
        if rate is None:
            return
        self.left = min(self.left + (now - self.at) * rate, rate * _BURST_SECONDS)
        self.at = now
        if self.left <= 0:
            why = f"{self.name} has used up its {rate:g} texts a second"
            if rate:
                why += f": try again in {-self.left / rate + 0.1:.1f} s"
            raise QuotaError(why, reason="QUOTA_EXCEEDED")
        self.left -= texts

    def give_back(self, texts: int) -> None:
        """Put back *texts* that were spent and then refused."""
        if self.texts_per_second is not None:
            self.left = min(self.left + texts, self.texts_per_second * _BURST_SECONDS)


ANONYMOUS: Final = Caller("anybody")
"""The caller of a server without tokens."""


class TokenAuth:
    """Knows the callers in a file and follows its changes. Use it in the event loop's thread."""

    def __init__(
        self, path: Path, clock: Callable[[], float] = time.monotonic, *, share: float = 1.0
    ) -> None:
        """Read *path*. Raises UsageError for a bad line, which it names, and for no caller at all.

        share: the part of each quota that this process grants, if several processes serve one port.
        """
        self._path = path
        self._share = share
        self._clock = clock
        self._checked = clock()
        self._file = FileWatcher([path])
        self._known = _read(path, self._checked, share)
        if not self._known:  # while the server runs, an empty file withdraws all tokens
            why = (
                f"{path} names no caller, so nobody could call the server: add the line of one, as"
            )
            raise UsageError(f"{why} `sentimill token NAME 2>> {path}` does", reason="BAD_TOKENS")

    def identify(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        """Return who sent *metadata*, by `authorization: Bearer TOKEN`. Raises AuthError."""
        self._refresh()
        shown = next((value for key, value in metadata if key == "authorization"), None)
        if not isinstance(shown, str) or not shown.startswith(_PREFIX):
            raise AuthError(
                "no token was sent: send the metadata `authorization: Bearer TOKEN`",
                reason="TOKEN_MISSING",
            )
        digest = sha256(shown.removeprefix(_PREFIX).encode()).hexdigest()
        found = None
        for caller in self._known:  # all, so that the time taken reveals nothing about a token
            if hmac.compare_digest(caller.digest, digest):
                found = caller
        if found is None:
            why = "the token is not known: ask whoever runs this server for one"
            raise AuthError(why, reason="TOKEN_UNKNOWN")
        return found

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._checked < _CHECK_SECONDS:
            return
        self._checked = now
        if not self._file.changed():
            return
        try:
            fresh = _read(self._path, now, self._share)
        except UsageError as error:
            log.error("the new tokens are ignored, the old ones stay valid: %s", error)
            return
        old = {(caller.digest, caller.texts_per_second): caller for caller in self._known}
        # Editing the file does not restore a used-up quota.
        self._known = [old.get((one.digest, one.texts_per_second), one) for one in fresh]
        log.info("%d tokens are known now", len(self._known))


def new_token(name: str, texts_per_second: float | None) -> tuple[str, str]:
    """Return a new token and the line for the file. Raises UsageError for a name with blanks."""
    token = secrets.token_urlsafe(32)
    rate = "" if texts_per_second is None else f" {texts_per_second:.10g}"
    line = f"{name} {sha256(token.encode()).hexdigest()}{rate}"
    if not _LINE.fullmatch(line) or name.startswith("#"):
        why = f"{name!r} at {texts_per_second} texts a second: use a name without blanks or a #"
        raise UsageError(why, reason="BAD_TOKEN_NAME")
    return token, line


def _read(path: Path, now: float, share: float) -> list[Caller]:
    try:
        if path.stat().st_mode & stat.S_IWOTH:
            log.warning("every user may write %s and admit callers: run chmod o-w on it", path)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the tokens cannot be read: {error}", reason="BAD_TOKENS") from error
    callers = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise UsageError(  # the line itself may hold a token that was put there by mistake
                f"line {number} of {path} is not `NAME SHA256 [TEXTS_PER_SECOND]`:"
                " make one with `sentimill token NAME`",
                reason="BAD_TOKENS",
            )
        rate = None if found[3] is None else float(found[3]) * share
        callers.append(Caller(found[1], found[2], rate, (rate or 0.0) * _BURST_SECONDS, now))
    return callers

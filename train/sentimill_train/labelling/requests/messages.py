"""The messages between the request loop and a provider: questions, replies and failures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

Mode = Literal["logprobs", "votes", "stated"]
"""Where shares come from: the token's probabilities, several answers, or stated numbers."""

TokenShares = tuple[str, tuple[tuple[str, float], ...]]
"""A token of an answer, and the most probable tokens at its place with their log-probabilities."""

_MESSAGE_TOKENS: Final = 256
"""How many tokens a chat template may add: role marks, a date, a default preamble."""


class Key(NamedTuple):
    """The key of an answer in the store. text: sha256 of the text as sent. vote: from 0."""

    teacher: str
    prompt: str
    text: str
    vote: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question to a teacher, independent of the provider.

    aliases: the letter that stands for each label, in label order; a new order every call.
    schema: the JSON schema of the answer. widen: the factor by which the answer may be
    longer than usual.
    """

    key: Key
    system: str
    user: str
    aliases: tuple[str, ...]
    schema: Mapping[str, object]
    usual_tokens: int
    widen: int
    mode: Mode

    @property
    def answer_tokens(self) -> int:
        """The longest answer that is paid for."""
        return self.usual_tokens * self.widen

    @property
    def temperature(self) -> float:
        """1 where several answers are drawn, else 0."""
        return 1.0 if self.mode == "votes" else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """The tokens that a reply was billed for. tokens_in includes the cached tokens."""

    tokens_in: int
    tokens_out: int
    cached_in: int = 0
    cache_written: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A stored reply, decoded but not yet parsed.

    stop: why the model stopped; `refusal` includes content filters. tokens: empty where the
    endpoint gave no log-probabilities. usage: None where the reply does not say what it cost.
    """

    content: str
    stop: Literal["end", "length", "refusal", "other"]
    usage: Usage | None
    tokens: tuple[TokenShares, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A call that brought no usable answer.

    reason: stable, UPPER_SNAKE_CASE. retry: the same call may succeed later. fatal: no other call
    can succeed either. at_risk: the provider may have billed it. heard: there was an answer, so
    waiting does not help. free: the next call differs, so this one does not count as an attempt.
    retry_after_s: how long the provider asked to wait.
    """

    reason: str
    retry: bool = False
    fatal: bool = False
    at_risk: bool = False
    heard: bool = False
    free: bool = False
    retry_after_s: float | None = None


class Teacher(Protocol):
    """A model behind an endpoint. `send` may be called by many tasks at once."""

    @property
    def name(self) -> str:
        """Its name in the store: provider, model, and the host where it is not the provider's."""

    def body(self, question: Question) -> dict[str, object]:
        """Return the request as JSON. A batch has the same JSON."""

    async def send(self, question: Question) -> str | Failure:
        """Return the reply's body as it came, or a failure. Network errors never raise."""

    def read(self, raw: str) -> Reply | None:
        """Decode the body of a reply. Returns None where the body is no reply."""


def most_tokens_in(body_bytes: int) -> int:
    """Return a bound on the tokens billed for a request of so many bytes.

    A byte-level tokenizer makes no token of less than one byte, so bytes bound tokens, about four
    times too high for English; the budget gets the difference back when a call settles.
    """
    return body_bytes + _MESSAGE_TOKENS

"""The messages between the request loop and a provider: questions, replies and failures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

Mode = Literal["logprobs", "votes", "stated"]
"""The source of shares: the probabilities of a token, several answers, or stated numbers."""

Stop = Literal["end", "length", "refusal", "other"]
"""Why a model stopped; `refusal` includes content filters."""

TokenShares = tuple[str, tuple[tuple[str, float], ...]]
"""A token of an answer, and the most probable tokens at its place with their log-probabilities."""


class Key(NamedTuple):
    """The key of an answer in the store. text: sha256 of the text as sent. vote: from 0."""

    teacher: str
    prompt: str
    text: str
    vote: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One question to a teacher, independent of the provider.

    aliases: the letter of each label, in label order; the letters differ from text to text.
    schema: the JSON schema of the answer. widen: the factor by which the answer may be longer than
    usual.
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
        """The limit on the tokens of the answer."""
        return self.usual_tokens * self.widen

    @property
    def temperature(self) -> float:
        """1 if several answers are sampled, else 0."""
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

    tokens: empty if the endpoint gave no log-probabilities. usage: None if the reply does not
    state its tokens.
    """

    content: str
    stop: Stop
    usage: Usage | None
    tokens: tuple[TokenShares, ...] = ()


@dataclass(eq=False, kw_only=True)
class Failure(Exception):
    """A call without a usable answer.

    reason: stable, UPPER_SNAKE_CASE. retry: another attempt may succeed. fatal: no other call can
    succeed either. at_risk: the provider may have billed it. heard: there was an answer, so waiting
    does not help. free: the call does not count as an attempt. retry_after_s: how long the provider
    asked to wait.
    """

    reason: str
    retry: bool = False
    fatal: bool = False
    at_risk: bool = False
    heard: bool = False
    free: bool = False
    retry_after_s: float | None = None

    def __reduce__(self) -> tuple[partial[Failure], tuple[()]]:
        """Make pickle and copy work, which otherwise pass the arguments by position."""
        return partial(Failure, **vars(self)), ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchStatus:
    """The state of a part at the provider. A part is what is submitted to a batch API at once.

    status: the provider's word for it, also the reason of requests without a result. over: no more
    results will come. files: paths of the results, one JSON document a line. full: the provider
    refused the part because its queue is full. refused: the provider refused it for another reason.
    gone: the provider has deleted the results.
    """

    status: str
    over: bool
    files: tuple[str, ...] = ()
    full: bool = False
    refused: bool = False
    gone: bool = False


def json_bytes(value: object) -> bytes:
    """Return JSON as it is sent: a lone surrogate, which UTF-8 cannot encode, becomes `?`."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")

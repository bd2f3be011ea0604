"""An annotator: a teacher with its prompt, which turns answers into soft labels."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from sentimill.errors import UsageError
from sentimill_train.labelling.prompt import Prompt
from sentimill_train.labelling.providers.teacher import Teacher
from sentimill_train.labelling.requests.messages import Key
from sentimill_train.labelling.requests.request_loop import MakeQuestion, Tally, stored_answer
from sentimill_train.labelling.requests.response_cache import ResponseCache
from sentimill_train.labelling.soft_labels import agreement, fit_temperature, of_votes, temper

_ADDRESS: Final = re.compile(
    r"@(?:\w+://)?((?:localhost|[\w.-]+:\d+|\d+(?:\.\d+){3}|\[[0-9a-f:.]+\]|[\w.-]+\.[a-z]{2,})"
    r"(?:[:/].*)?)$",
    re.IGNORECASE,
)
"""An address after `@`. The name of a model may have an `@` too: `m@v2`, `m@2026-01-01`."""


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher as the command line names it: `openai:MODEL` or `openai:MODEL@URL`."""

    provider: str
    model: str
    url: str | None

    @classmethod
    def parse(cls, text: str, default_url: str | None = None) -> TeacherSpec:
        """Parse a name. Raises UsageError BAD_TEACHER."""
        provider, _, rest = text.partition(":")
        model, at, url = rest.rpartition("@http")
        if not at:
            model, url = rest, ""
        if provider not in ("openai", "anthropic") or not model:
            raise UsageError(
                f"{text!r} is not a teacher: write openai:MODEL, openai:MODEL@URL or"
                " anthropic:MODEL",
                reason="BAD_TEACHER",
            )
        if not at and (like := _ADDRESS.search(model)):
            name = text.removesuffix(like[0])
            raise UsageError(
                f"{text!r} has an address without http:// or https://, so it would be taken for a"
                f" part of the model's name: write {name}@http://{like[1]}",
                reason="BAD_TEACHER",
            )
        found = f"http{url}" if at else default_url
        if found is not None and urlsplit(found).scheme not in ("http", "https"):
            raise UsageError(
                f"{found!r} is not a base URL: write http://host:port/v1", reason="BAD_TEACHER"
            )
        return cls(provider, model, found)


def open_teacher(spec: TeacherSpec, *, key: str | None, timeout_s: float) -> Teacher:
    """Return the teacher behind a name.

    key: None if the environment has none; an endpoint of your own may accept that.
    """
    from sentimill_train.labelling.providers.anthropic import AnthropicTeacher
    from sentimill_train.labelling.providers.openai import OpenAITeacher

    if key is None and spec.url is None:
        variable = f"{spec.provider.upper()}_API_KEY"
        raise UsageError(
            f"there is no key for {spec.provider}: set {variable} in the environment",
            reason="MISSING_KEY",
        )
    opened = AnthropicTeacher if spec.provider == "anthropic" else OpenAITeacher
    url = spec.url or opened.own_url
    return opened(spec.model, url=url, key=key or "none", timeout_s=timeout_s)


@dataclass(slots=True)
class Annotator:
    """A teacher with its prompt, and its quality on gold rows.

    agreement: the share of gold rows on which its first choice is right; None without gold rows.
    tally: the counts of its calls.
    """

    teacher: Teacher
    prompt: Prompt
    votes: int
    temperature: float = 1.0
    agreement: float | None = None
    gold_rows: int = 0
    tally: Tally = field(default_factory=Tally)

    @property
    def weight(self) -> float:
        """The weight of its shares when several annotators are combined."""
        return 1.0 if self.agreement is None else max(self.agreement, 0.01)

    def keys(self, text: str) -> list[Key]:
        """Return the keys of the answers about *text*."""
        name = self.teacher.name
        return [self.prompt.key(name, text, vote) for vote in range(self.votes)]

    def failure(self, text: str) -> str | None:
        """Return why there is no answer about *text*: the last failure of one of its questions."""
        failures = self.tally.failures
        return next((failures[key] for key in self.keys(text) if key in failures), None)

    def raw_shares(self, store: ResponseCache, text: str) -> tuple[float, ...] | None:
        """Return the stored shares before the temperature; None with too few usable answers."""
        questions = (
            self.prompt.question(self.teacher.name, text, vote) for vote in range(self.votes)
        )
        answers = (stored_answer(store, self.teacher, question) for question in questions)
        found = [answer for answer in answers if answer is not None]
        if 2 * len(found) <= self.votes:  # more than half of the votes are needed
            return None
        return of_votes(found) if self.prompt.mode == "votes" else found[0]

    def shares(self, store: ResponseCache, text: str) -> tuple[float, ...] | None:
        """Return the shares after the temperature."""
        raw = self.raw_shares(store, text)
        return None if raw is None else temper(raw, self.temperature)

    def measure(self, store: ResponseCache, gold: Sequence[tuple[str, int]]) -> None:
        """Set agreement and temperature from gold rows (text, index of the label)."""
        rows = [
            (shares, label)
            for text, label in gold
            if (shares := self.raw_shares(store, text)) is not None
        ]
        self.gold_rows = len(rows)
        self.agreement = agreement(rows)
        self.temperature = fit_temperature(rows)

    def questions_about(self, texts: Iterable[str]) -> Iterator[MakeQuestion]:
        """Yield every question to ask about *texts*, in order."""
        for text in texts:
            for vote in range(self.votes):
                yield functools.partial(self.prompt.question, self.teacher.name, text, vote)

"""An annotator: a teacher with its prompt, and how its answers become shares."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args
from urllib.parse import urlsplit

from sentimill.errors import UsageError
from sentimill_train.labelling.prompt import Prompt, Shot, load_prompt
from sentimill_train.labelling.requests.batch_api import ModelTeacher
from sentimill_train.labelling.requests.messages import Mode
from sentimill_train.labelling.requests.request_loop import (
    MakeQuestion,
    RequestRunner,
    stored_answer,
)
from sentimill_train.labelling.requests.response_cache import ResponseCache
from sentimill_train.labelling.soft_labels import agreement, fit_temperature, of_votes, temper

__all__ = [
    "Annotator",
    "PromptFile",
    "Soft",
    "TeacherSpec",
    "choose_mode",
    "open_teacher",
    "questions_about",
]

Soft = Literal["auto", "logprobs", "votes", "stated"]


@dataclass(frozen=True, slots=True)
class TeacherSpec:
    """A teacher as the command line names it: `openai:MODEL` or `openai:MODEL@URL`."""

    provider: str
    model: str
    url: str | None

    @classmethod
    def parse(cls, text: str, default_url: str | None = None) -> TeacherSpec:
        """Read a name. Raises UsageError when it is none."""
        provider, _, rest = text.partition(":")
        model, at, url = rest.rpartition("@http")
        if not at:
            model, url = rest, ""
        if provider not in ("openai", "anthropic") or not model:
            raise UsageError(
                f"{text!r} names no teacher: write openai:MODEL, openai:MODEL@URL or"
                " anthropic:MODEL",
                reason="BAD_TEACHER",
            )
        found = f"http{url}" if at else default_url
        if found is not None and urlsplit(found).scheme not in ("http", "https"):
            raise UsageError(
                f"{found!r} is no base URL: write http://host:port/v1", reason="BAD_TEACHER"
            )
        return cls(provider, model, found)


def open_teacher(spec: TeacherSpec, *, key: str | None, timeout_s: float) -> ModelTeacher:
    """Return the teacher behind a name.

    key: None where the environment has none, which an endpoint of your own accepts.
    """
    from sentimill_train.labelling.providers.anthropic import ANTHROPIC_URL, AnthropicTeacher
    from sentimill_train.labelling.providers.openai import OPENAI_URL, OpenAITeacher

    if key is None and spec.url is None:
        variable = f"{spec.provider.upper()}_API_KEY"
        raise UsageError(
            f"there is no key for {spec.provider}: set {variable} in the environment",
            reason="MISSING_KEY",
        )
    if spec.provider == "anthropic":
        return AnthropicTeacher(
            spec.model, url=spec.url or ANTHROPIC_URL, key=key or "none", timeout_s=timeout_s
        )
    return OpenAITeacher(
        spec.model, url=spec.url or OPENAI_URL, key=key or "none", timeout_s=timeout_s
    )


@dataclass(frozen=True, slots=True)
class PromptFile:
    """A prompt file with its labels, before the mode of the answers is known."""

    path: Path
    labels: tuple[str, ...]
    shots: tuple[Shot, ...] = ()
    meanings: Mapping[str, str] | None = None

    def bind(self, mode: Mode) -> Prompt:
        """Return the prompt for a mode."""
        return load_prompt(self.path, self.labels, mode, self.shots, self.meanings)


@dataclass(slots=True)
class Annotator:
    """A teacher with its prompt, and what gold rows say of it.

    agreement: the share of gold rows on which its first choice is right; None without gold rows.
    """

    teacher: ModelTeacher
    prompt: Prompt
    votes: int
    temperature: float = 1.0
    agreement: float | None = None
    gold_rows: int = 0

    @property
    def weight(self) -> float:
        """The weight of its shares where several annotators are combined."""
        return 1.0 if self.agreement is None else max(self.agreement, 0.01)

    def raw_shares(self, store: ResponseCache, text: str) -> tuple[float, ...] | None:
        """Return the stored shares before the temperature; None without enough usable answers."""
        found = []
        for vote in range(self.votes):
            question = self.prompt.question(self.teacher.name, text, vote)
            answer = stored_answer(store, self.teacher, question)
            if answer is not None:
                found.append(answer)
        if 2 * len(found) <= self.votes:  # most of the votes must be there
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


def questions_about(annotator: Annotator, texts: Iterable[str]) -> Iterator[MakeQuestion]:
    """Yield every question to ask about *texts*, in order."""
    name = annotator.teacher.name
    for text in texts:
        for vote in range(annotator.votes):
            yield functools.partial(annotator.prompt.question, name, text, vote)


async def choose_mode(
    teacher: ModelTeacher,
    file: PromptFile,
    store: ResponseCache,
    runner: RequestRunner,
    *,
    votes: int,
    text: str,
) -> Mode:
    """Ask one question to find out whether an endpoint gives log-probabilities; remember it.

    Without them the mode is votes where more than one is asked for, else stated shares.
    """
    fact = f"mode {teacher.name} {votes}"
    known = store.fact(fact)
    if known in get_args(Mode):
        return cast(Mode, known)
    mode: Mode = "votes" if votes > 1 else "stated"
    if teacher.offers_logprobs:
        prompt = file.bind("logprobs")
        question = prompt.question(teacher.name, text)
        await runner.run([functools.partial(prompt.question, teacher.name, text, 0)])
        replies = [teacher.read(raw) for raw in store.replies(question.key)]
        if any(reply is not None and reply.tokens for reply in replies):
            mode = "logprobs"
        elif runner.tally.stopped is not None or not any(replies):
            return mode  # the question got no answer, so nothing is known
    await store.remember(fact, mode)
    return mode

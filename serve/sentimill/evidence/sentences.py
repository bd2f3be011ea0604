"""Explains an answer: each sentence of the text, with its own answer and its effect.

A sentence and the text without it are classified like any other text, in the same batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from sentimill.errors import SentimillError
from sentimill.installed_packages import from_extra
from sentimill.types import Prediction, Probs, Sentence

MAX_SENTENCES: Final = 32
"""Sentences of one text. Where there are more, adjacent ones are joined."""

MAX_CHARACTERS: Final = 8192
"""A longer text is not split: the model reads only about 1,000 characters of it."""

E = TypeVar("E", bound=SentimillError)

Row = Sequence[float] | None
"""The probs of a text or a part of one, None where it has none."""


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the start and the end of each sentence, in characters, without blanks around it."""
    if len(text) > MAX_CHARACTERS:
        return []
    with from_extra("evidence", "sentences need the package nupunkt"):
        from nupunkt import sentence_spans as split
    spans = split(text)
    count = min(len(spans), MAX_SENTENCES)
    groups = [spans[k * len(spans) // count : (k + 1) * len(spans) // count] for k in range(count)]
    return [(group[0][0], group[-1][1]) for group in groups]


def sentences_json(sentences: Sequence[Sentence]) -> str | None:
    """Return *sentences* as a cell of a table: places, labels and changes; None for none."""
    rows = [
        dict(start=s.start, end=s.end, label=s.label, change=s.change and round(s.change, 4))
        for s in sentences
    ]
    return json.dumps(rows) if rows else None


class Explanation:
    """Yields texts and their parts, and turns the probs of all these into `Sentence` records.

    Iterating yields the texts, and then, for each sentence of each text, the sentence and the text
    without it. A text of one sentence has no parts. Iterate once.
    """

    def __init__(self, texts: Iterable[Any]) -> None:
        self._texts = texts
        self._spans: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[Any]:
        parts: list[str] = []
        for text in self._texts:
            spans = sentence_spans(text) if isinstance(text, str) else []
            self._spans.append(spans)
            if len(spans) > 1:
                for start, end in spans:
                    parts += [text[start:end], f"{text[:start]} {text[end:]}"]
            yield text
        yield from parts

    def attach(
        self, results: Sequence[Prediction | E], labels: tuple[str, ...]
    ) -> list[Prediction | E]:
        """Return the results of the texts, each answer with its sentences.

        results: of all texts and parts, in the order of iteration.
        """
        probs = [one.probs if isinstance(one, Prediction) else None for one in results]
        return [
            replace(one, sentences=found) if isinstance(one, Prediction) else one
            for one, found in zip(results, self.sentences(probs, labels), strict=False)
        ]

    def sentences(
        self, probs: Sequence[Row], labels: tuple[str, ...]
    ) -> list[tuple[Sentence, ...]]:
        """Return the sentences of each text, from the *probs* of all texts and parts."""
        parts = iter(probs[len(self._spans) :])
        found: list[tuple[Sentence, ...]] = []
        for whole, spans in zip(probs, self._spans, strict=False):
            made = []
            for start, end in spans:
                own, rest = (next(parts), next(parts)) if len(spans) > 1 else (whole, None)
                if own and whole:
                    label, change = labels[own.index(max(own))], _change(whole, rest, labels)
                    made.append(Sentence(start, end, label, Probs(own, labels), change))
            found.append(tuple(made))
        return found


def _change(whole: Sequence[float], rest: Row, labels: tuple[str, ...]) -> float | None:
    if rest is None:
        return None
    if "negative" in labels and "positive" in labels:
        up, down = labels.index("positive"), labels.index("negative")
        return whole[up] - whole[down] - (rest[up] - rest[down])
    best = whole.index(max(whole))
    return whole[best] - rest[best]

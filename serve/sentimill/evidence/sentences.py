"""Which sentence says so: the sentences of a text, each with its own answer and its effect.

A sentence and the text without it are classified like any other text, in the same batches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from sentimill.errors import SentimillError, UsageError
from sentimill.types import Prediction, Probs, Sentence

MAX_SENTENCES: Final = 32
"""Sentences of one text. Where there are more, neighbours are taken together."""

MAX_CHARACTERS: Final = 8192
"""A longer text is not split: the model reads some 1,000 characters of it."""

E = TypeVar("E", bound=SentimillError)

Row = Sequence[float] | None
"""The probs of a text or a part of one, None where it has none."""


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the start and the end of each sentence, in characters, without blanks around it."""
    if len(text) > MAX_CHARACTERS:
        return []
    try:
        from nupunkt import sentence_spans as split
    except ImportError as error:
        why = f"sentences need the package nupunkt ({error}): pip install 'sentimill[evidence]'"
        raise UsageError(why, reason="EXTRA_MISSING") from error
    spans = split(text)
    count = min(len(spans), MAX_SENTENCES)
    groups = [spans[k * len(spans) // count : (k + 1) * len(spans) // count] for k in range(count)]
    return [(group[0][0], group[-1][1]) for group in groups]


def sentences_json(sentences: Sequence[Sentence]) -> str | None:
    """Return *sentences* as a cell of a table: places, labels and changes; None for none."""
    rows = [
        {
            "start": one.start,
            "end": one.end,
            "label": one.label,
            "change": None if one.change is None else round(one.change, 4),
        }
        for one in sentences
    ]
    return json.dumps(rows) if rows else None


class Explanation:
    """Texts and, behind them, their parts; and the sentences that follow from the probs of all.

    To iterate over it yields the texts, then for each text its sentences and itself without each of
    them. A text of one sentence has no parts. Iterate once.
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
                parts += [text[start:end] for start, end in spans]
                parts += [f"{text[:start]} {text[end:]}" for start, end in spans]
            yield text
        yield from parts

    def attach(
        self, results: Sequence[Prediction | E], labels: tuple[str, ...]
    ) -> list[Prediction | E]:
        """Return the results of the texts, each answer with its sentences.

        results: of all that was yielded.
        """
        probs = [one.probs if isinstance(one, Prediction) else None for one in results]
        return [
            replace(one, sentences=found) if isinstance(one, Prediction) else one
            for one, found in zip(results, self.sentences(probs, labels), strict=False)
        ]

    def sentences(
        self, probs: Sequence[Row], labels: tuple[str, ...]
    ) -> list[tuple[Sentence, ...]]:
        """Return the sentences of each text, from the *probs* of all that was yielded."""
        at = len(self._spans)
        found: list[tuple[Sentence, ...]] = []
        for whole, spans in zip(probs, self._spans, strict=False):
            alone: Sequence[Row] = [whole]
            without: Sequence[Row] = [None]
            if (count := len(spans)) > 1:
                alone, without = probs[at : at + count], probs[at + count : at + 2 * count]
                at += 2 * count
            parts = zip(spans, alone, without, strict=False)
            made = [_sentence(*span, own, rest, whole, labels) for span, own, rest in parts]
            found.append(tuple(one for one in made if one is not None))
        return found


def _sentence(
    start: int, end: int, own: Row, rest: Row, whole: Row, labels: tuple[str, ...]
) -> Sentence | None:
    if own is None or whole is None:
        return None
    best = max(range(len(labels)), key=whole.__getitem__)

    def value(probs: Sequence[float]) -> float:
        if "negative" in labels and "positive" in labels:
            return probs[labels.index("positive")] - probs[labels.index("negative")]
        return probs[best]

    label = labels[max(range(len(labels)), key=own.__getitem__)]
    change = None if rest is None else value(whole) - value(rest)
    return Sentence(start=start, end=end, label=label, probs=Probs(own, labels), change=change)

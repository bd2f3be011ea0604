"""Scorers answer the texts of a job. The one here runs a bundle in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sentimill.classifier import Classifier, plan_batches, probabilities
from sentimill.engine.failures import run_or_split
from sentimill.errors import (
    EngineError,
    SentimillError,
    TextError,
)
from sentimill.evidence.sentences import Explanation, sentences_json
from sentimill.scoring.answer_columns import Answers
from sentimill.text.tokenizer import Encoded

__all__ = ["LocalScorer", "Model", "Prepared", "Scorer", "Texts"]

Texts = Sequence[str | TextError | None]


@dataclass(frozen=True, slots=True)
class Model:
    """The model that answers, which may not change. engine: precision, engine and provider."""

    digest: str
    engine: str
    labels: tuple[str, ...]
    threshold: float | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Texts on their way to the engine, between `Scorer.prepare` and `Scorer.answer`."""

    texts: Texts
    encoded: Sequence[Encoded | TextError | None]
    explanation: Explanation | None = None


class Scorer(Protocol):
    """Answers the texts of a window. Two threads take part, one for each method."""

    def model(self) -> Model:
        """Return the model that answers now."""
        ...

    def prepare(self, texts: Texts) -> Prepared:
        """Do the work that needs no engine, while the engine runs the window before."""
        ...

    def answer(self, prepared: Prepared) -> Answers:
        """Return the answers, an error for each text that has none. Raises SentimillError."""
        ...


class LocalScorer:
    """Runs the classifier in this process, in batches of texts of like length.

    explain: answer the sentences of each text too.
    """

    def __init__(
        self, classifier: Classifier, *, batch_tokens: int | None = None, explain: bool = False
    ) -> None:
        self._classifier = classifier
        self._explain = explain
        self._encoder = classifier.new_encoder()
        self._batch_tokens = batch_tokens or classifier.batch_tokens
        self._temperature = classifier.bundle.manifest.precision(classifier.precision).temperature

    def model(self) -> Model:
        """See `Scorer.model`."""
        classifier = self._classifier
        info = classifier.engine.info()
        engine = f"{classifier.precision} on {info.engine} {info.provider}"
        if self._encoder.languages:  # else no row abstains for its language
            engine += f" for {'+'.join(sorted(self._encoder.languages))}"
        return Model(classifier.bundle.digest, engine, classifier.labels, classifier.threshold)

    def prepare(self, texts: Texts) -> Prepared:
        """See `Scorer.prepare`: tokenise."""
        given, explanation = texts, None
        if self._explain:
            explanation = Explanation(texts)
            texts = list(explanation)
        encoded: list[Encoded | TextError | None] = [
            text if isinstance(text, TextError) else None for text in texts
        ]
        positions = [i for i, text in enumerate(texts) if isinstance(text, str)]
        found = self._encoder.encode([text for text in texts if isinstance(text, str)])
        for place, result in zip(positions, found, strict=True):
            encoded[place] = result
        return Prepared(given, encoded, explanation)

    def answer(self, prepared: Prepared) -> Answers:
        """See `Scorer.answer`: batches of like length; one that fails is split."""
        encoded = prepared.encoded
        errors: dict[int, SentimillError] = {}
        positions: list[int] = []
        foreign: list[int] = []
        rows: list[NDArray[np.int64]] = []
        for i, result in enumerate(encoded):
            if isinstance(result, Encoded):
                positions.append(i)
                rows.append(result.ids)
                if result.foreign:
                    foreign.append(i)
            elif result is not None:
                errors[i] = result
        probs = np.full((len(encoded), len(self._classifier.labels)), np.nan, dtype=np.float32)
        padded = 0
        batches = list(plan_batches([len(ids) for ids in rows], self._batch_tokens))
        results = self._classifier.at_once(self._run, [[rows[k] for k in b] for b in batches])
        for batch, (found, failed) in zip(batches, results, strict=True):
            padded += self._classifier.computed_tokens([len(rows[k]) for k in batch])
            probs[[positions[k] for k in batch]] = found
            errors |= {positions[batch[k]]: error for k, error in failed.items()}
        tokens = sum(map(len, rows))
        if (explanation := prepared.explanation) is None:
            return Answers(probs, errors, foreign, tokens, padded)
        count = len(prepared.texts)
        parts = [None if np.isnan(row[0]) else row.tolist() for row in probs]
        sentences = explanation.sentences(parts, self._classifier.labels)
        own_errors = {i: error for i, error in errors.items() if i < count}
        own_foreign = [i for i in foreign if i < count]
        return Answers(
            probs[:count],
            own_errors,
            own_foreign,
            tokens,
            padded,
            [*map(sentences_json, sentences)],
        )

    def _run(
        self, rows: Sequence[NDArray[np.int64]], other_calls: int
    ) -> tuple[NDArray[np.float32], dict[int, EngineError]]:
        """Return probs (rows, labels), NaN where the engine failed, and the errors by row."""
        logits, errors = run_or_split(lambda part: self._classifier.run(part, other_calls), rows)
        if logits is None:
            nothing = np.full((len(rows), len(self._classifier.labels)), np.nan, dtype=np.float32)
            return nothing, errors
        return probabilities(logits, self._temperature), errors

"""Computes the measures of a bundle on texts without labels: answers, unknown words, embeddings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Encoding, Tokenizer

from sentimill.bundle.reader import Bundle
from sentimill.classifier import Classifier, Prediction
from sentimill.errors import InputError, TextError
from sentimill.text.cleaning import clean
from sentimill_train.metrics.classification import Floats

_CHARACTERS = 20_000  # only these of a text are counted: a book in a cell would take a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The measures of texts, in their order.

    kept: (rows,) int64, the index of each row among the given texts; the other texts have no
    answer. probs: (rows, labels). words: (rows,). oov: (rows,), the share of words that the
    tokenizer splits into several tokens, or does not know.
    """

    kept: np.typing.NDArray[np.int64]
    probs: Floats
    words: Floats
    oov: Floats

    @property
    def confidence(self) -> Floats:
        """The largest prob of each row: (rows,)."""
        return np.asarray(self.probs.max(axis=1))

    def counts(self, labels: Sequence[str]) -> dict[str, int]:
        """Return how many rows get each of *labels*, in the bundle's order."""
        found = np.bincount(self.probs.argmax(axis=1), minlength=len(labels))
        return dict(zip(labels, found.tolist(), strict=True))


def observe(classifier: Classifier, texts: Sequence[str]) -> Observed:
    """Classify *texts* and count their words.

    Raises:
        InputError: NOTHING_CLASSIFIED if the bundle can read none of them.
    """
    answers = classifier.classify(texts)
    kept = [i for i, answer in enumerate(answers) if isinstance(answer, Prediction)]
    if not kept:
        raise InputError(
            f"none of {len(texts)} texts can be read: are they empty? Name their column with"
            " --text-column",
            reason="NOTHING_CLASSIFIED",
        )
    counted = _count(classifier.bundle, [texts[i] for i in kept])
    return Observed(
        kept=np.array(kept, dtype=np.int64),
        probs=np.array([a.probs for a in answers if isinstance(a, Prediction)], dtype=np.float64),
        words=counted[:, 0],
        oov=counted[:, 1],
    )


def embeddings(classifier: Classifier, texts: Sequence[str]) -> Floats | None:
    """Return the mean token state of each text (rows, hidden), None if the bundle has no weights.

    torch computes it, at the max_tokens of the bundle. Every text must be one that `observe` kept.
    """
    from sentimill_train.model.student import embed, load_student

    bundle = classifier.bundle
    if not bundle.has("model.safetensors"):
        return None
    for name in ("config.json", "model.safetensors"):
        bundle.read(name)  # checks the hash of what is loaded next
    encoded = classifier.encoder.encode(texts)
    rows = [each.ids for each in encoded if not isinstance(each, TextError)]
    return embed(load_student(bundle.path), rows).astype(np.float64)


def _count(bundle: Bundle, texts: Sequence[str]) -> Floats:
    """Return words and share out of vocabulary (rows, 2), before truncation to max_tokens."""
    tokenizer = Tokenizer.from_buffer(bundle.read("tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    unknown = getattr(tokenizer.model, "unk_token", None)
    read = [clean(text)[:_CHARACTERS] for text in texts]
    found = tokenizer.encode_batch(read, add_special_tokens=False)
    return np.array([_words(each, unknown) for each in found], dtype=np.float64)


def _words(encoding: Encoding, unknown: str | None) -> tuple[int, float]:
    """Return the number of words, as the tokenizer splits them, and the share out of vocabulary."""
    pieces = Counter(encoding.word_ids)
    strange = {
        word
        for word, token in zip(encoding.word_ids, encoding.tokens, strict=True)
        if token == unknown or pieces[word] > 1
    }
    return len(pieces), len(strange) / max(1, len(pieces))

"""Other precisions beside fp32, on the same rows: made, run, and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.bundle import Bundle
from sentimill.classifier import Classifier, encoder_of, golden_fault, probabilities
from sentimill.errors import BundleError, EngineError, TextError, UsageError
from sentimill.text import pad
from sentimill_train.export import Run, graph_logits, open_graph
from sentimill_train.measures import Answers
from sentimill_train.precision_gate import (
    NotJudged,
    Outcome,
    PrecisionCheck,
    check_precision,
    is_invariant,
)
from sentimill_train.quantise import int8_graph
from sentimill_train.records import read_examples
from sentimill_train.smaller import short_positions, small_embeddings
from sentimill_train.tokens import Rows

__all__ = ["Beside"]

_FP32: Final = "fp32"
_CPU: Final = "ONNX Runtime on the CPU"
_ENGINES: Final = {
    "fp32": f"{_CPU}, exported by optimum",
    "int8": _CPU,
    "fp16": f"{_CPU}, where most products are computed in float32",
    "bf16": "OpenVINO on the CPU",
}
_SEEN: Final = 64  # starter reviews, to round by: some 4,000 tokens


class Beside:
    """Puts other precisions beside fp32, on the same *rows*.

    fp32: a graph in place of the bundle's own.
    """

    def __init__(
        self, opened: Bundle, rows: Rows, say: Callable[[str], None], fp32: bytes | None = None
    ) -> None:
        self._opened = opened
        self.rows = rows
        self._say = say
        self.fp32 = fp32 or opened.read(opened.manifest.precision(_FP32).file)
        self._encoder = encoder_of(opened.manifest, opened.read("tokenizer.json"))
        self._reference: NDArray[np.float32] | None = None

    def int8(self, *, small: bool, float_attention: bool) -> bytes:
        """Return the int8 graph; small: with its word vectors in int8 too."""
        self._say("making int8")
        texts = [e.text for e in read_examples("starter")]
        chosen = texts[:: max(1, len(texts) // _SEEN)]
        encoded = self._encoder.encode(chosen)
        ids = [text.ids for text in encoded if not isinstance(text, TextError)]
        made = int8_graph(self.fp32, ids, float_attention=float_attention)
        if not small:
            return made
        return short_positions(small_embeddings(made), self._opened.manifest.max_tokens)

    def bf16(self) -> Outcome:
        """Say how near fp32 comes to itself where an engine rounds it to bf16, as one that serves.

        Lengths are rounded up as in service, for the same bits at any padding.
        """
        self._say("loading bf16")
        try:
            classifier = Classifier.load(self._opened.path, precision="bf16")

            def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
                lengths = mask.sum(axis=1).tolist()
                return classifier.run([row[:n] for row, n in zip(ids, lengths, strict=True)])

            return self.check("bf16", run)
        except (UsageError, EngineError) as error:
            return NotJudged(precision="bf16", why=str(error))
        except BundleError as error:
            if error.reason != "BUNDLE_GOLDEN_MISMATCH":
                raise
            return NotJudged(precision="bf16", why="the golden texts do not come out")

    def check(self, precision: str, run: Run) -> PrecisionCheck:
        """Say how near the answers of *run* come to those of fp32."""
        manifest, rows = self._opened.manifest, self.rows
        if self._reference is None:
            self._say(f"answering {len(rows):,} rows in fp32")
            self._reference = graph_logits(open_graph(self.fp32), rows, manifest.pad_id)
        self._say(f"answering {len(rows):,} rows in {precision}")
        logits = graph_logits(run, rows, manifest.pad_id)
        return check_precision(
            precision,
            self._answers(self._reference),
            self._answers(logits),
            invariant=is_invariant(run, rows, manifest.pad_id),
            golden=self._replays(run, precision),
            max_logit_difference=float(np.abs(logits - self._reference).max()),
            engine=_ENGINES[precision],
        )

    def _answers(self, logits: NDArray[np.float32]) -> Answers:
        return Answers(
            self._opened.manifest.labels, self.rows.gold, self._probs(logits).astype(np.float64)
        )

    def _probs(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        # One temperature for all: a threshold then means the same, and the gate looks at the ECE.
        return probabilities(logits, self._opened.manifest.precision(_FP32).temperature)

    def _replays(self, run: Run, precision: str) -> bool:
        """Whether the golden texts come out near enough for a bundle to be loaded."""
        manifest = self._opened.manifest
        texts = self._encoder.encode([golden.text for golden in manifest.golden])
        return not any(
            isinstance(text, TextError)
            or golden_fault(
                golden, self._probs(run(*pad([text.ids], manifest.pad_id)))[0].tolist(), precision
            )
            for golden, text in zip(manifest.golden, texts, strict=True)
        )

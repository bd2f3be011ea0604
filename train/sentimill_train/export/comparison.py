"""Makes other precisions of a bundle's fp32 graph, and compares them with it on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.bundle.reader import Bundle
from sentimill.classifier import Classifier, encoder_of, golden_fault, probabilities
from sentimill.errors import BundleError, EngineError, TextError, UsageError
from sentimill_train.calibration.abstention import choose_threshold
from sentimill_train.calibration.temperature import find_temperature
from sentimill_train.data.examples import read_examples
from sentimill_train.data.tokenized import Rows
from sentimill_train.export.acceptance import (
    NotJudged,
    Outcome,
    PrecisionCheck,
    compare_answers,
    is_invariant,
)
from sentimill_train.export.acceptance_rows import GateRows
from sentimill_train.export.onnx import Run, graph_logits, open_graph, text_logits
from sentimill_train.export.quantization.embeddings import quantize_embeddings, trim_positions
from sentimill_train.export.quantization.int8 import int8_graph
from sentimill_train.metrics.classification import Answers

_FP32: Final = "fp32"
_CPU: Final = "ONNX Runtime on the CPU"
_ENGINES: Final = {
    "fp32": f"{_CPU}, exported by optimum",
    "int8": _CPU,
    "fp16": f"{_CPU}, where most products are computed in float32",
    "bf16": "OpenVINO on the CPU",
}
_FEWEST_FITTED: Final = 200  # with fewer rows, one outlier would change the temperature
_CALIBRATION_TEXTS: Final = 64  # starter reviews, 4,000 tokens, for statistics of activations


class Comparison:
    """Compares precisions with fp32 on *rows*, each with its own temperature and threshold.

    fp32: a graph to use instead of that of the bundle.
    """

    def __init__(
        self, opened: Bundle, rows: GateRows, say: Callable[[str], None], fp32: bytes | None = None
    ) -> None:
        self._opened = opened
        self._manifest = opened.manifest
        self._judged = rows.judged
        self._fitted = rows.fitted if len(rows.fitted) >= _FEWEST_FITTED else None
        self._say = say
        self.fp32 = fp32 or opened.read(opened.manifest.precision(_FP32).file)
        self._encoder = encoder_of(opened.manifest, opened.read("tokenizer.json"))
        self._temperature = opened.manifest.precision(_FP32).temperature

    def make_int8(self, *, small: bool, float_values: bool) -> bytes:
        """Return the int8 graph; small: with word vectors in int8 too, and no unused positions."""
        self._say("making int8")
        texts = [e.text for e in read_examples("starter")]
        chosen = texts[:: max(1, len(texts) // _CALIBRATION_TEXTS)]
        encoded = self._encoder.encode(chosen)
        ids = [text.ids for text in encoded if not isinstance(text, TextError)]
        made = int8_graph(self.fp32, ids, float_values=float_values)
        if not small:
            return made
        return trim_positions(quantize_embeddings(made), self._manifest.max_tokens)

    def check_bf16(self) -> Outcome:
        """Compare fp32 with bf16, to which a serving engine rounds the fp32 graph.

        Lengths are rounded up as in serving, to get the same bits at any padding.
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
            return NotJudged(precision="bf16", why="the golden texts get other probs")

    def check(self, precision: str, run: Run) -> PrecisionCheck:
        """Compare the answers of *run* with those of fp32."""
        reference, best = self._of_fp32
        self._say_answering(precision)
        logits = self._logits(run, self._judged)
        temperature, threshold, fitted_on = self._temperature, None, 0
        if self._fitted is not None and precision != _FP32:
            fitted_on = len(self._fitted)
            temperature, threshold = self._calibrated(run, self._fitted, best)
        agreement, sure_agreement, f1_drop, ece_change = compare_answers(
            self._answers(reference, self._judged, self._temperature),
            self._answers(logits, self._judged, temperature),
        )
        return PrecisionCheck(
            precision=precision,
            engine=_ENGINES[precision],
            rows=len(self._judged),
            agreement=agreement,
            sure_agreement=sure_agreement,
            macro_f1_drop=f1_drop,
            ece_change=ece_change,
            invariant=is_invariant(run, self._judged, self._manifest.pad_id),
            golden=self._replays(run, precision, temperature),
            max_logit_difference=float(np.abs(logits - reference).max()),
            temperature=temperature,
            fitted_on=fitted_on,
            threshold=threshold,
        )

    @cached_property
    def _of_fp32(self) -> tuple[NDArray[np.float32], float]:
        """The logits of fp32, and its best temperature for the rows to fit on (1 without any)."""
        self._say_answering(_FP32)
        run = open_graph(self.fp32)
        logits, best = self._logits(run, self._judged), 1.0
        if self._fitted is not None:
            best = find_temperature(self._logits(run, self._fitted), self._fitted.gold)
        return logits, best

    def _say_answering(self, precision: str) -> None:
        rows = len(self._judged) + len(self._fitted or ())
        self._say(f"answering {rows:,} rows in {precision}")

    def _calibrated(self, run: Run, rows: Rows, best: float) -> tuple[float, float | None]:
        """Return the temperature of a precision, and its threshold if it has its own.

        best: the best temperature of fp32 for *rows*. The temperature of fp32 in the bundle is
        multiplied by the ratio of the best temperatures of the precision and of fp32 for *rows*. If
        training calibrated on the same rows, the result is the best temperature itself. On other
        rows, the ratio keeps their difference from the training rows out of the result, so that it
        stays comparable with the temperature of fp32. The threshold is chosen as in training.
        """
        logits = self._logits(run, rows)
        temperature = self._temperature * find_temperature(logits, rows.gold) / best
        target = self._manifest.training.get("target_error")
        if self._manifest.threshold is None or not isinstance(target, float):
            return temperature, None
        answers = self._answers(logits, rows, temperature)
        chosen = choose_threshold(answers.confidence, answers.correct, target_error=target)
        return temperature, chosen.threshold

    def _logits(self, run: Run, rows: Rows) -> NDArray[np.float32]:
        return graph_logits(run, rows, self._manifest.pad_id)

    def _answers(self, logits: NDArray[np.float32], rows: Rows, temperature: float) -> Answers:
        probs = probabilities(logits, temperature).astype(np.float64)
        return Answers(self._manifest.labels, rows.gold, probs)

    def _replays(self, run: Run, precision: str, temperature: float) -> bool:
        """Whether the probs of the golden texts are close enough for a bundle to load."""
        golden = self._manifest.golden
        texts = [each.text for each in golden]
        found = text_logits(run, self._encoder, self._manifest.pad_id, texts)
        return not any(
            logits is None
            or golden_fault(each, probabilities(logits, temperature)[0].tolist(), precision)
            for each, logits in zip(golden, found, strict=True)
        )

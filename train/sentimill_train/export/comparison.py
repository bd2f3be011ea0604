"""Makes other precisions of a bundle's fp32 graph, and compares each with it on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.bundle.reader import Bundle
from sentimill.classifier import Classifier, encoder_of, golden_fault, probabilities
from sentimill.errors import BundleError, EngineError, TextError, UsageError
from sentimill.text.tokenizer import Encoded, pad
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
from sentimill_train.export.onnx import Run, graph_logits, open_graph
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
_FEWEST_FITTED: Final = 200  # with fewer rows, one odd row would change the temperature
_CALIBRATION_TEXTS: Final = 64  # starter reviews, 4,000 tokens: their activations guide rounding


class Comparison:
    """Compares precisions with fp32 on *rows*, each with a temperature and threshold of its own.

    fp32: a graph to use in place of the bundle's own.
    """

    def __init__(
        self, opened: Bundle, rows: GateRows, say: Callable[[str], None], fp32: bytes | None = None
    ) -> None:
        self._opened = opened
        self.rows = rows
        self._say = say
        self.fp32 = fp32 or opened.read(opened.manifest.precision(_FP32).file)
        self._encoder = encoder_of(opened.manifest, opened.read("tokenizer.json"))
        self._temperature = opened.manifest.precision(_FP32).temperature
        self._calibrates = len(rows.fitted) >= _FEWEST_FITTED
        self._reference: NDArray[np.float32] | None = None
        self._refitted = 1.0

    def make_int8(self, *, small: bool, float_values: bool) -> bytes:
        """Return the int8 graph; small: with its word vectors in int8 too."""
        self._say("making int8")
        texts = [e.text for e in read_examples("starter")]
        chosen = texts[:: max(1, len(texts) // _CALIBRATION_TEXTS)]
        encoded = self._encoder.encode(chosen)
        ids = [text.ids for text in encoded if not isinstance(text, TextError)]
        made = int8_graph(self.fp32, ids, float_values=float_values)
        if not small:
            return made
        return trim_positions(quantize_embeddings(made), self._opened.manifest.max_tokens)

    def check_bf16(self) -> Outcome:
        """Compare fp32 with itself as an engine that serves rounds it to bf16.

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
        """Compare the answers of *run* with those of fp32."""
        pad_id, rows = self._opened.manifest.pad_id, self.rows.judged
        if self._reference is None:
            self._say(f"answering {len(rows) + self._fitted_on:,} rows in fp32")
            fp32 = open_graph(self.fp32)
            self._reference = self._logits(fp32, rows)
            if self._calibrates:
                fitted = self.rows.fitted
                self._refitted = find_temperature(self._logits(fp32, fitted), fitted.gold)
        self._say(f"answering {len(rows) + self._fitted_on:,} rows in {precision}")
        logits = self._logits(run, rows)
        temperature, threshold = self._calibrated(precision, run)
        agreement, sure_agreement, f1_drop, ece_change = compare_answers(
            self._answers(self._reference, self._temperature), self._answers(logits, temperature)
        )
        return PrecisionCheck(
            precision=precision,
            engine=_ENGINES[precision],
            rows=len(rows),
            agreement=agreement,
            sure_agreement=sure_agreement,
            macro_f1_drop=f1_drop,
            ece_change=ece_change,
            invariant=is_invariant(run, rows, pad_id),
            golden=self._replays(run, precision, temperature),
            max_logit_difference=float(np.abs(logits - self._reference).max()),
            temperature=temperature,
            fitted_on=0 if precision == _FP32 else self._fitted_on,
            threshold=threshold,
        )

    @property
    def _fitted_on(self) -> int:
        return len(self.rows.fitted) if self._calibrates else 0

    def _calibrated(self, precision: str, run: Run) -> tuple[float, float | None]:
        """Return the temperature of *precision*, and its threshold where it has one of its own.

        The temperature is fp32's times what the precision changes about the best one for these
        rows. Where they are the rows that training calibrated on, this is the temperature fitted on
        them. On other rows a plain fit would also take in how they differ from those, which fp32's
        has not, and the two could not be compared. The threshold is chosen as training chose it.
        """
        if not self._calibrates or precision == _FP32:
            return self._temperature, None
        rows = self.rows.fitted
        logits = self._logits(run, rows)
        temperature = self._temperature * find_temperature(logits, rows.gold) / self._refitted
        target = self._opened.manifest.training.get("target_error")
        if self._opened.manifest.threshold is None or not isinstance(target, float):
            return temperature, None
        probs = probabilities(logits, temperature)
        chosen = choose_threshold(
            probs.max(axis=1).astype(np.float64),
            probs.argmax(axis=1) == rows.gold,
            target_error=target,
        )
        return temperature, chosen.threshold

    def _logits(self, run: Run, rows: Rows) -> NDArray[np.float32]:
        return graph_logits(run, rows, self._opened.manifest.pad_id)

    def _answers(self, logits: NDArray[np.float32], temperature: float) -> Answers:
        probs = probabilities(logits, temperature).astype(np.float64)
        return Answers(self._opened.manifest.labels, self.rows.judged.gold, probs)

    def _replays(self, run: Run, precision: str, temperature: float) -> bool:
        """Whether the golden texts come out close enough for a bundle to load."""
        manifest = self._opened.manifest

        def probs(text: Encoded) -> list[float]:
            logits = run(*pad([text.ids], manifest.pad_id))
            return list(probabilities(logits, temperature)[0].tolist())

        texts = self._encoder.encode([golden.text for golden in manifest.golden])
        return not any(
            isinstance(text, TextError) or golden_fault(golden, probs(text), precision)
            for golden, text in zip(manifest.golden, texts, strict=True)
        )

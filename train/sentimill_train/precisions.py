"""Another precision for a bundle: made of its fp32 graph, gated on real rows, kept or left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill.bundle import Bundle, Manifest, Precision, check_writable, open_bundle, write_bundle
from sentimill.classifier import encoder_of, golden_fault, probabilities
from sentimill.errors import BundleError, TextError
from sentimill.text import TextEncoder, pad
from sentimill_train.export import Run, graph_logits, open_graph
from sentimill_train.measures import Answers
from sentimill_train.precision_gate import PrecisionCheck, check_precision, is_invariant
from sentimill_train.quantise import int8_graph
from sentimill_train.records import Columns, Example, read_examples
from sentimill_train.samples import read_sample
from sentimill_train.smaller import half_graph, half_weights, short_positions, small_embeddings
from sentimill_train.tokens import Rows, tokenise

__all__ = ["Export", "Exported"]

_FP32: Final = "fp32"
_INT8: Final = "int8"
_INT8_FILE: Final = "onnx/int8.onnx"
_WEIGHTS: Final = "model.safetensors"
_HEADING: Final = "## Other precisions"
_SEEN: Final = 64  # starter reviews, to round by: some 4,000 tokens


@dataclass(frozen=True, slots=True)
class Exported:
    """The bundle that was written, and what the gate said of each precision that was tried."""

    bundle: Bundle
    checks: tuple[PrecisionCheck, ...]


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write *bundle* again to *out*, with an int8 graph where that passes its gate.

    on: labelled files that the model has not learned from, 2,000 rows or more in all; of a file
    that it was trained on, only the test rows are taken. compact: for shipping, int8 alone, with
    word vectors in int8, and weights to train on in fp16. float_attention: see `int8_graph`.
    """

    bundle: Path
    out: Path
    on: tuple[str, ...]
    columns: Columns = field(default_factory=Columns)
    compact: bool = False
    float_attention: bool = False
    overwrite: bool = False

    def run(self, say: Callable[[str], None] = lambda stage: None) -> Exported:
        """Do it. say: is told what is being done.

        Raises:
            UsageError: *out* is taken. TableError, InputError: too few rows to judge on.
            BundleError: *bundle* does not verify, its graph is none that int8 can be made of, or a
            compact bundle did not pass.
        """
        check_writable(self.out, overwrite=self.overwrite)
        opened = open_bundle(self.bundle)
        opened.verify()
        if _FP32 not in opened.manifest.precisions:
            raise BundleError(
                f"{self.bundle} has no fp32 graph to make int8 of: give the bundle that it was"
                " made from",
                reason="NO_FP32",
            )
        say("reading reviews")
        gate = _Gate(opened, self._rows(opened), say)
        data = gate.int8(small=self.compact, float_attention=self.float_attention)
        checks = [gate.check(_INT8, data)]
        if self.compact:
            checks.append(gate.check("fp16", half_graph(gate.fp32)))
            _refuse_failed(checks)
        bundle = self._write(opened, data if checks[0].passed else None, checks)
        return Exported(bundle, tuple(checks))

    def _rows(self, opened: Bundle) -> Rows:
        manifest = opened.manifest
        examples: list[Example] = []
        for source in self.on:
            sample = read_sample(
                source, manifest.labels, trained_on=manifest.sources, columns=self.columns
            )
            examples += sample.examples
        return tokenise(examples, _encoder(opened), manifest.labels)[0]

    def _write(self, opened: Bundle, data: bytes | None, checks: list[PrecisionCheck]) -> Bundle:
        manifest = opened.manifest
        kept = {name: p for name, p in manifest.precisions.items() if name != _INT8}
        if self.compact:
            kept = {}
        left_out = {p.file for p in manifest.precisions.values()} - {p.file for p in kept.values()}
        files: dict[str, bytes | Path] = {
            name: opened.read(name) for name in manifest.files if name not in left_out
        }
        card = opened.read("README.md") if "README.md" in manifest.files else b""
        files["README.md"] = _card(card, checks, compact=self.compact)
        if self.compact and _WEIGHTS in files:
            files[_WEIGHTS] = half_weights(opened.read(_WEIGHTS))
        if data is not None:
            files[_INT8_FILE] = data
            kept[_INT8] = _entry(manifest, checks[0])
        return write_bundle(
            self.out,
            files,
            lambda listed: _dated(msgspec.structs.replace(manifest, precisions=kept, files=listed)),
            overwrite=self.overwrite,
        )


class _Gate:
    """Puts other graphs beside a bundle's fp32 graph, on the same rows."""

    def __init__(self, opened: Bundle, rows: Rows, say: Callable[[str], None]) -> None:
        self._opened = opened
        self._rows = rows
        self._say = say
        self.fp32 = opened.read(opened.manifest.precision(_FP32).file)
        self._reference: NDArray[np.float32] | None = None

    def int8(self, *, small: bool, float_attention: bool) -> bytes:
        """Return the int8 graph; small: with its word vectors in int8 too."""
        self._say("making int8")
        texts = [e.text for e in read_examples("starter")]
        chosen = texts[:: max(1, len(texts) // _SEEN)]
        encoded = _encoder(self._opened).encode(chosen)
        ids = [text.ids for text in encoded if not isinstance(text, TextError)]
        made = int8_graph(self.fp32, ids, float_attention=float_attention)
        if not small:
            return made
        return short_positions(small_embeddings(made), self._opened.manifest.max_tokens)

    def check(self, precision: str, data: bytes) -> PrecisionCheck:
        """Say how near the graph *data* comes to fp32."""
        manifest, rows = self._opened.manifest, self._rows
        if self._reference is None:
            self._say(f"answering {len(rows):,} rows in fp32")
            self._reference = graph_logits(open_graph(self.fp32), rows, manifest.pad_id)
        self._say(f"answering {len(rows):,} rows in {precision}")
        run = open_graph(data)
        logits = graph_logits(run, rows, manifest.pad_id)
        return check_precision(
            precision,
            self._answers(self._reference),
            self._answers(logits),
            invariant=is_invariant(run, rows, manifest.pad_id),
            golden=self._replays(run, precision),
            max_logit_difference=float(np.abs(logits - self._reference).max()),
        )

    def _answers(self, logits: NDArray[np.float32]) -> Answers:
        return Answers(
            self._opened.manifest.labels, self._rows.gold, self._probs(logits).astype(np.float64)
        )

    def _probs(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        # One temperature for all: a threshold then means the same, and the gate looks at the ECE.
        return probabilities(logits, self._opened.manifest.precision(_FP32).temperature)

    def _replays(self, run: Run, precision: str) -> bool:
        """Whether the golden texts come out near enough for a bundle to be loaded."""
        manifest = self._opened.manifest
        texts = _encoder(self._opened).encode([golden.text for golden in manifest.golden])
        return not any(
            isinstance(text, TextError)
            or golden_fault(
                golden, self._probs(run(*pad([text.ids], manifest.pad_id)))[0].tolist(), precision
            )
            for golden, text in zip(manifest.golden, texts, strict=True)
        )


def _encoder(opened: Bundle) -> TextEncoder:
    return encoder_of(opened.manifest, opened.read("tokenizer.json"))


def _entry(manifest: Manifest, check: PrecisionCheck) -> Precision:
    return Precision(
        file=_INT8_FILE,
        temperature=manifest.precision(_FP32).temperature,
        max_logit_difference=check.max_logit_difference,
        parity_rows=check.rows,
        agreement=check.agreement,
        macro_f1_drop=check.macro_f1_drop,
        ece_change=check.ece_change,
    )


def _dated(manifest: Manifest) -> Manifest:
    now = datetime.now(UTC)
    return msgspec.structs.replace(
        manifest,
        version=now.strftime("%Y.%m.%d.%H%M%S"),
        created=now.isoformat(timespec="seconds"),
    )


def _refuse_failed(checks: list[PrecisionCheck]) -> None:
    """Raise BundleError PRECISION_REFUSED: without its precisions a compact bundle is nothing."""
    failed = [check.sentence() for check in checks if not check.passed]
    if failed:
        raise BundleError(
            f"no compact bundle was written: {' '.join(failed)} Try"
            " --float-attention, or ship the fp32 bundle",
            reason="PRECISION_REFUSED",
        )


def _card(card: bytes, checks: list[PrecisionCheck], *, compact: bool) -> bytes:
    """Return the model card with the outcome of the gate in place of an earlier one."""
    before = card.decode("utf-8").partition(_HEADING)[0].rstrip()
    lines = [check.sentence() for check in checks]
    if compact:
        lines = [
            "This bundle is the small form of the one that the figures above and `report.html` are"
            " of: it answers in int8 alone, its word vectors are in int8 too, and"
            f" `{_WEIGHTS}` holds the weights in fp16, to train on. {lines[0]}"
            f" The weights in fp16, run in fp32: {lines[1]}"
        ]
    return f"{before}\n\n{_HEADING}\n\n{' '.join(lines)}\n".encode()

"""Another precision for a bundle: made from its fp32 graph, gated on real rows, added or left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill.bundle import Bundle, Manifest, Precision, check_writable, open_bundle, write_bundle
from sentimill.classifier import probabilities
from sentimill.text import TextEncoder, Truncation
from sentimill_train.calibrate import match_temperature
from sentimill_train.export import graph_logits, open_graph
from sentimill_train.measures import Answers
from sentimill_train.precision_gate import PrecisionCheck, check_precision, is_invariant
from sentimill_train.quantise import int8_graph
from sentimill_train.records import Columns, Example
from sentimill_train.samples import read_sample
from sentimill_train.tokens import Rows, tokenise

__all__ = ["Export"]

_FP32 = "fp32"
_INT8 = "int8"
_HEADING = "## Other precisions"


@dataclass(frozen=True, kw_only=True)
class Export:
    """Write *bundle* again to *out*, with an int8 graph where that passes its gate.

    on: labelled files that the model has not learned from, 2,000 rows or more in all; of a file
    that it was trained on, only the test rows are taken.
    """

    bundle: Path
    out: Path
    on: tuple[str, ...]
    columns: Columns = field(default_factory=Columns)
    overwrite: bool = False

    def run(self) -> tuple[Bundle, PrecisionCheck]:
        """Do it, and return the bundle with the outcome of the gate.

        Raises:
            UsageError: *out* is taken. TableError, InputError: too few rows to judge on.
            BundleError: *bundle* does not verify, or its graph is none that int8 can be made of.
        """
        check_writable(self.out, overwrite=self.overwrite)
        opened = open_bundle(self.bundle)
        opened.verify()
        manifest = opened.manifest
        rows = self._rows(opened)
        fp32 = opened.read(manifest.precision(_FP32).file)
        data = int8_graph(fp32)
        logits = graph_logits(open_graph(fp32), rows, manifest.pad_id)
        probs = probabilities(logits, manifest.precision(_FP32).temperature)
        run = open_graph(data)
        found = graph_logits(run, rows, manifest.pad_id)
        temperature = match_temperature(found, probs)
        check = check_precision(
            _INT8,
            _answers(manifest, rows, probs),
            _answers(manifest, rows, probabilities(found, temperature)),
            invariant=is_invariant(run, rows, manifest.pad_id),
        )
        entry = Precision(
            file="onnx/int8.onnx",
            temperature=temperature,
            max_logit_difference=float(np.abs(found - logits).max()),
            parity_rows=len(rows),
        )
        return self._write(opened, data if check.passed else None, entry, check), check

    def _rows(self, opened: Bundle) -> Rows:
        manifest = opened.manifest
        examples: list[Example] = []
        for source in self.on:
            sample = read_sample(
                source, manifest.labels, trained_on=manifest.sources, columns=self.columns
            )
            examples += sample.examples
        encoder = TextEncoder.from_bytes(
            opened.read("tokenizer.json"),
            max_tokens=manifest.max_tokens,
            truncation=cast(Truncation, manifest.truncation),
        )
        return tokenise(examples, encoder, manifest.labels)[0]

    def _write(
        self, opened: Bundle, data: bytes | None, entry: Precision, check: PrecisionCheck
    ) -> Bundle:
        manifest = opened.manifest
        files: dict[str, bytes | Path] = {
            name: opened.read(name) for name in manifest.files if name != entry.file
        }
        files["README.md"] = _card(files.get("README.md", b""), check)
        kept = {name: p for name, p in manifest.precisions.items() if name != _INT8}
        if data is not None:
            files[entry.file] = data
            kept[_INT8] = entry
        now = datetime.now(UTC)
        return write_bundle(
            self.out,
            files,
            lambda listed: msgspec.structs.replace(
                manifest,
                version=now.strftime("%Y.%m.%d.%H%M%S"),
                created=now.isoformat(timespec="seconds"),
                precisions=kept,
                files=listed,
            ),
            overwrite=self.overwrite,
        )


def _answers(manifest: Manifest, rows: Rows, probs: NDArray[np.float32]) -> Answers:
    return Answers(manifest.labels, rows.gold, probs.astype(np.float64))


def _card(card: bytes | Path, check: PrecisionCheck) -> bytes:
    """Return the model card with the outcome of the gate in place of an earlier one."""
    text = card.decode() if isinstance(card, bytes) else card.read_text(encoding="utf-8")
    before = text.partition(_HEADING)[0].rstrip()
    return f"{before}\n\n{_HEADING}\n\n{check.sentence()}\n".encode()

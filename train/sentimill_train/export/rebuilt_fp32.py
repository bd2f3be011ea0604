"""Makes the fp32 graph of a compact bundle again, from the weights that it ships to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from sentimill.bundle.manifest import File, Golden, Manifest, Precision
from sentimill.bundle.reader import WEIGHTS, Bundle
from sentimill.bundle.writer import write_bundle
from sentimill.classifier import encoder_of, golden_fault, probabilities
from sentimill.errors import BundleError, TextError
from sentimill.text.tokenizer import Encoded, pad
from sentimill_train.export.onnx import Run, export_fp32
from sentimill_train.export.precision_report import of_rebuilt

_FP32: Final = "fp32"
_FILE: Final = "onnx/fp32.onnx"
_DOCUMENTS: Final = ("README.md", "report.html")


def with_fp32(opened: Bundle, out: Path) -> Bundle:
    """Write *opened* to *out* with the fp32 graph of its weights, and return that bundle.

    The golden texts keep the probabilities that fp32 gave when the bundle was trained. Its
    temperature follows from them, and they show that the weights are those of the bundle.

    Raises:
        BundleError: NO_FP32 where the bundle has no weights either; BUNDLE_GOLDEN_MISMATCH.
    """
    manifest = opened.manifest
    if WEIGHTS not in manifest.files or not opened.has(WEIGHTS):
        raise BundleError(
            f"{opened.path} has neither an fp32 graph to make another precision of, nor"
            f" {WEIGHTS} to make one from: give the bundle that it was made from",
            reason="NO_FP32",
        )
    graph = export_fp32(opened.path)
    precision = Precision(
        file=_FILE,
        temperature=_temperature(opened, graph.run),
        max_logit_difference=graph.max_logit_difference,
        parity_rows=graph.parity_rows,
    )
    files: dict[str, bytes | Path] = {
        name: opened.read(name) for name in manifest.files if opened.has(name)
    }
    card, page = (
        opened.read(name).decode() if name in manifest.files else "" for name in _DOCUMENTS
    )
    told = zip(_DOCUMENTS, of_rebuilt(card, page), strict=True)
    files |= {name: text.encode() for name, text in told if name in manifest.files}

    def listed(hashes: dict[str, File]) -> Manifest:
        return msgspec.structs.replace(
            manifest, precisions={_FP32: precision, **manifest.precisions}, files=hashes
        )

    return write_bundle(out, {**files, _FILE: graph.data}, listed)


def _temperature(opened: Bundle, run: Run) -> float:
    """Return the temperature at which *run* gives the golden probabilities.

    The log of the ratio of two probabilities is the difference of their logits over the
    temperature: the median over the texts is that of their largest and smallest.
    """
    manifest = opened.manifest
    encoder = encoder_of(manifest, opened.read("tokenizer.json"))
    found: list[tuple[Golden, NDArray[np.float32]]] = []
    for golden, text in zip(
        manifest.golden, encoder.encode([each.text for each in manifest.golden]), strict=True
    ):
        if not isinstance(text, TextError):
            found.append((golden, _logits(run, text, manifest.pad_id)))
    ratios = []
    for golden, logits in found:
        most, least = int(np.argmax(golden.probs)), int(np.argmin(golden.probs))
        span = np.log(golden.probs[most]) - np.log(max(golden.probs[least], 1e-12))
        ratios.append(float(logits[most] - logits[least]) / span)
    temperature = float(np.median(ratios))
    for golden, logits in found:
        probs = probabilities(logits[None], temperature)[0].tolist()
        if fault := golden_fault(golden, probs, _FP32):
            raise BundleError(
                f"{opened.path}: {WEIGHTS} is not what the other graphs were made of: a golden"
                f" text {fault}",
                reason="BUNDLE_GOLDEN_MISMATCH",
            )
    return temperature


def _logits(run: Run, text: Encoded, pad_id: int) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = run(*pad([text.ids], pad_id))[0]
    return logits

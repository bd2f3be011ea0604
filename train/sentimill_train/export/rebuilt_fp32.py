"""Makes the fp32 graph of a compact bundle again, from the weights that it ships to train on."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from sentimill.bundle.reader import WEIGHTS, Bundle
from sentimill.bundle.writer import write_bundle
from sentimill.classifier import encoder_of, golden_fault, probabilities
from sentimill.errors import BundleError
from sentimill_train.export.onnx import FP32_FILE, Run, export_fp32, text_logits
from sentimill_train.export.precision_report import of_rebuilt

_FP32: Final = "fp32"
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
    files: dict[str, bytes | Path] = {
        name: opened.read(name) for name in manifest.files if opened.has(name)
    }
    card, page = (opened.text(name) for name in _DOCUMENTS)
    told = zip(_DOCUMENTS, of_rebuilt(card, page), strict=True)
    files |= {name: text.encode() for name, text in told if text}
    precision = graph.precision(_temperature(opened, graph.run))
    precisions = {_FP32: precision, **manifest.precisions}
    made = msgspec.structs.replace(manifest, precisions=precisions)
    return write_bundle(out, {**files, FP32_FILE: graph.data}, made)


def _temperature(opened: Bundle, run: Run) -> float:
    """Return the temperature at which *run* gives the golden probabilities.

    The log of the ratio of two probabilities is the difference of their logits over the
    temperature: the median over the texts is that of their largest and smallest.
    """
    manifest = opened.manifest
    encoder = encoder_of(manifest, opened.read("tokenizer.json"))
    texts = [golden.text for golden in manifest.golden]
    answered = zip(manifest.golden, text_logits(run, encoder, manifest.pad_id, texts), strict=True)
    found = [(golden, logits) for golden, logits in answered if logits is not None]
    ratios = []
    for golden, logits in found:
        most, least = int(np.argmax(golden.probs)), int(np.argmin(golden.probs))
        span = np.log(golden.probs[most]) - np.log(max(golden.probs[least], 1e-12))
        ratios.append(float(logits[0, most] - logits[0, least]) / span)
    temperature = float(np.median(ratios))
    for golden, logits in found:
        probs = probabilities(logits, temperature)[0].tolist()
        if fault := golden_fault(golden, probs, _FP32):
            raise BundleError(
                f"{opened.path}: {WEIGHTS} is not what the other graphs were made of: a golden"
                f" text {fault}",
                reason="BUNDLE_GOLDEN_MISMATCH",
            )
    return temperature

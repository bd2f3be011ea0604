"""Rebuilds the fp32 graph of a compact bundle from its fp16 weights."""

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
    """Write *opened* to *out* with an fp32 graph of its weights, and return that bundle.

    The golden texts have the probs of fp32 from when the bundle was trained. They give the
    temperature, and prove that the weights are those of the bundle.

    Raises:
        BundleError: NO_FP32 if the bundle has no weights either; BUNDLE_GOLDEN_MISMATCH.
    """
    manifest = opened.manifest
    if WEIGHTS not in manifest.files or not opened.has(WEIGHTS):
        raise BundleError(
            f"{opened.path} has neither an fp32 graph, from which other precisions are made, nor"
            f" {WEIGHTS} to rebuild it: give the bundle that this one was made from",
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
    """Return the temperature at which *run* gives the golden probs.

    The log of the ratio of two probs is the difference of their logits divided by the temperature.
    This is solved for the largest and the smallest prob of each text; the median is returned.
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
                f"{opened.path}: {WEIGHTS} does not belong to the graphs of the bundle: a golden"
                f" text {fault}",
                reason="BUNDLE_GOLDEN_MISMATCH",
            )
    return temperature

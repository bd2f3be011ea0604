"""The manifest of a bundle, the folder that training writes and serving reads.

::

    bundle/
      manifest.json      everything a reader must know, and the sha256 of every other file
      tokenizer.json     the only tokenizer file
      onnx/fp32.onnx     one graph per precision, without external data
      config.json  model.safetensors       the encoder and the head, for further training
      README.md  metrics.json  report.html  the model card and the evaluation

Nothing else passes between training and serving. `reader` opens a bundle, `writer` writes one.
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"


# Every part of the manifest ignores unknown keys: a breaking change raises SCHEMA_VERSION instead.


class File(msgspec.Struct, frozen=True, kw_only=True):
    """The size and the hash of a file."""

    sha256: str
    size_bytes: int


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """The encoder that training started from; `revision` is None for a local folder.

    sources: if the encoder is a bundle itself, the files that it and its own bases were trained on.
    base: the encoder that it was made from; its sources are among those here.
    """

    name: str
    sha256: str
    revision: str | None = None
    sources: tuple[Source, ...] = ()
    base: Base | None = None


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the model: a graph, and what was measured with it.

    file: the graph. bf16 names the fp32 graph, which an engine rounds by itself. packed: the same
    graph without padding, for GPUs; None where there is none. temperature: the logits are divided
    by it before the softmax (Guo et al. 2017, section 4.2). max_logit_difference: the largest
    absolute difference over `parity_rows` rows, between fp32 and torch or another precision and
    fp32. agreement, macro_f1_drop, ece_change: what the gate measured on those rows against fp32;
    None for fp32 itself. threshold: replaces that of the manifest unless it is None.
    """

    file: str
    temperature: float
    max_logit_difference: float
    parity_rows: int
    agreement: float | None = None
    macro_f1_drop: float | None = None
    ece_change: float | None = None
    packed: str | None = None
    threshold: float | None = None

    @property
    def graphs(self) -> tuple[str, ...]:
        """The names of its files."""
        return (self.file,) if self.packed is None else (self.file, self.packed)


class Golden(msgspec.Struct, frozen=True, kw_only=True):
    """A test text and the probs that every load must reproduce, in the order of `labels`.

    label: the most probable one, so that labels in another order are noticed; None in bundles that
    are older than this field.
    """

    text: str
    probs: tuple[float, ...]
    label: str | None = None


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file that the model was trained on, by name and hash; its texts are not in the bundle.

    texts: base64 of hashes of some of its texts, to recognize the file in another format.
    """

    name: str
    sha256: str
    rows: int
    texts: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """All of manifest.json.

    created: UTC in ISO 8601. threshold: confidence below which the model abstains; None for never.
    threshold_coverage, threshold_error: the share of the validation rows that it answers, and the
    share of these answers that is wrong; None without a threshold. label_mix: the share of each
    label among the model's own answers on its test split, the baseline for drift. cleaning: the
    version of `sentimill.text.cleaning` that the model was trained with; a manifest without it
    means version 1. languages: ISO 639-1 codes of the languages that the model was made for; empty
    if they are not known, and then no text abstains because of its language.
    """

    schema_version: int
    name: str
    version: str
    created: str
    labels: tuple[str, ...]
    max_tokens: int
    truncation: str
    pad_id: int
    base: Base
    precisions: dict[str, Precision]
    golden: tuple[Golden, ...]
    files: dict[str, File]
    threshold: float | None = None
    threshold_coverage: float | None = None
    threshold_error: float | None = None
    metrics: dict[str, float] = {}
    sources: tuple[Source, ...] = ()
    libraries: dict[str, str] = {}
    training: dict[str, str | int | float | bool | None] = {}
    label_mix: dict[str, float] = {}
    cleaning: int = 1
    languages: tuple[str, ...] = ()

    @property
    def trainings(self) -> tuple[tuple[Source, ...], ...]:
        """The sources of the model's own training, and those of all trainings before it."""
        return (self.sources, self.base.sources)

    def precision(self, name: str) -> Precision:
        """Return the entry of *name*; bf16 without one of its own gets that of fp32.

        Raises KeyError if there is neither.
        """
        if name == "bf16" and name not in self.precisions:
            name = "fp32"
        return self.precisions[name]

    def graph_file(self, precision: str, provider: str) -> str:
        """Return the file of the graph that *provider* runs for *precision*."""
        entry = self.precision(precision)
        return entry.packed if provider == "cuda" and entry.packed else entry.file

    def threshold_of(self, precision: str) -> float | None:
        """Return the confidence below which the model abstains in *precision*; None for never."""
        own = self.precision(precision).threshold
        return self.threshold if own is None else own


def problem_of(manifest: Manifest) -> str | None:
    """Return what is wrong with the values of *manifest*, or None."""
    labels = manifest.labels
    precisions = manifest.precisions.values()
    thresholds = [manifest.threshold, *(p.threshold for p in precisions)]
    problems = {
        "labels must be two or more different names": len(set(labels)) != len(labels)
        or len(labels) < 2,
        "precisions must name at least one graph": not precisions,
        "golden must hold at least one text": not manifest.golden,
        "golden must hold one prob per label": any(
            len(g.probs) != len(labels) for g in manifest.golden
        ),
        "a golden text's label must be the most probable one": any(
            g.label is not None and g.label != labels[g.probs.index(max(g.probs))]
            for g in manifest.golden
            if len(g.probs) == len(labels)
        ),
        "each precision's files must be listed under files": any(
            file not in manifest.files for p in precisions for file in p.graphs
        ),
        "tokenizer.json must be listed under files": "tokenizer.json" not in manifest.files,
        "temperature must be a finite number above 0": any(
            not (math.isfinite(p.temperature) and p.temperature > 0) for p in precisions
        ),
        "threshold must be between 0 and 1": not all(0 <= (t or 0) <= 1 for t in thresholds),
    }
    return next((problem for problem, found in problems.items() if found), None)

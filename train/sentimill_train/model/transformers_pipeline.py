"""A bundle as a `text-classification` pipeline of transformers, with the same labels and probs."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TextClassificationPipeline
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.pipelines.base import GenericTensor

from sentimill.bundle.reader import WEIGHTS, open_bundle
from sentimill.bundle.reference import reference_bundle
from sentimill.classifier import encoder_of
from sentimill.errors import TextError, UsageError
from sentimill.text.tokenizer import TextEncoder
from sentimill_train.model.student import Student, load_student


def to_transformers(bundle: Path | str | None = None) -> TextClassificationPipeline:
    """Return the bundle's weights as a pipeline; None is the reference student.

    to_transformers("bundles/mine")("Works as promised.", top_k=None)

    Texts are cleaned, truncated and tokenized as for the bundle, and the logits are calibrated, so
    the scores equal the probs of `Classifier` except for the rounding of its precision. A text that
    cannot be classified raises its TextError.

    Raises:
        BundleError: the folder is not a valid bundle.
        UsageError: BUNDLE_NO_WEIGHTS, the bundle has no `model.safetensors`.
    """
    opened = open_bundle(reference_bundle() if bundle is None else bundle)
    manifest = opened.manifest
    if WEIGHTS not in manifest.files:
        why = f"{opened.path} has no {WEIGHTS}: use a bundle that train wrote"
        raise UsageError(why, reason="BUNDLE_NO_WEIGHTS")
    tokenizer_json = opened.read("tokenizer.json")
    tokenizer = Tokenizer.from_buffer(tokenizer_json)
    # A compact bundle may have only int8, whose temperature is close to that of fp32.
    precision = manifest.precisions.get("fp32") or next(iter(manifest.precisions.values()))
    return _Pipeline(
        encoder_of(manifest, tokenizer_json),
        model=_Calibrated(load_student(opened.path), precision.temperature),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token=tokenizer.id_to_token(manifest.pad_id)
        ),
    )


class _Calibrated(PreTrainedModel):
    """A student with logits divided by its temperature, in the form that pipelines expect."""

    _supports_sdpa = True

    def __init__(self, student: Student, temperature: float) -> None:
        super().__init__(student.config)
        self.student = student
        self.temperature = temperature

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, **_: object
    ) -> SequenceClassifierOutput:
        """Return the calibrated logits (rows, labels) float32; both inputs are (rows, tokens)."""
        logits = self.student(input_ids, attention_mask)
        return SequenceClassifierOutput(logits=logits / self.temperature)


class _Pipeline(TextClassificationPipeline):
    """The pipeline with the bundle's own cleaning, truncation and tokens."""

    def __init__(self, encoder: TextEncoder, **parts: object) -> None:
        super().__init__(**parts)  # type: ignore[no-untyped-call] # not annotated there
        self._encoder = encoder

    def preprocess(self, inputs: str, **_: object) -> dict[str, GenericTensor]:  # type: ignore[override] # two parents name it differently
        """Return the token ids of one text, (1, tokens). Raises TextError."""
        (encoded,) = self._encoder.encode([inputs])
        if isinstance(encoded, TextError):
            raise encoded
        ids = torch.from_numpy(encoded.ids)[None]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

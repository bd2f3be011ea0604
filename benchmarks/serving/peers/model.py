"""What every peer serves: the bundle's graph and tokenizer, as a user of that server would.

It runs in the peers' environments, so it needs onnxruntime, tokenizers and numpy, but not
Sentimill.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

MAX_BATCH = int(os.environ.get("PEER_BATCH", "32"))
"""The most texts in one batch."""

MAX_WAIT_MS = 20
"""How long a batch waits for more; with 128 callers it never has to."""


class Model:
    """Texts in, probs out; a batch is padded to its longest text."""

    def __init__(self) -> None:
        """Load the bundle in PEER_BUNDLE in the precision PEER_PRECISION on PEER_THREADS."""
        bundle = Path(os.environ["PEER_BUNDLE"])
        manifest = json.loads((bundle / "manifest.json").read_text())
        precision = manifest["precisions"][os.environ["PEER_PRECISION"]]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
        self._session = onnxruntime.InferenceSession(
            bundle / precision["file"], options, providers=["CPUExecutionProvider"]
        )
        self._temperature = float(precision["temperature"])
        self._tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
        self._tokenizer.enable_truncation(manifest["max_tokens"])
        self._tokenizer.enable_padding(pad_id=manifest["pad_id"])

    def probs(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the probs of *texts*."""
        encoded = self._tokenizer.encode_batch(list(texts))
        (logits,) = self._session.run(
            None,
            {
                "input_ids": np.array([one.ids for one in encoded], np.int64),
                "attention_mask": np.array([one.attention_mask for one in encoded], np.int64),
            },
        )
        powers = np.exp((logits - logits.max(1, keepdims=True)) / self._temperature)
        found: list[list[float]] = (powers / powers.sum(1, keepdims=True)).tolist()
        return found

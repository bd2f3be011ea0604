"""Knows a file that was trained on by its rows, also in another order, format or name.

A bundle keeps a sketch of each training file: the smallest hashes of its texts. Those hashes are a
random sample of the texts, and any text whose hash lies in their range can be looked up exactly.
The sketch holds no text. Whoever has a text can test whether it was among the sampled ones.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Final

import numpy as np

from sentimill_train.data.splits import text_key

KNOWN_SHARE: Final = 0.5
"""A file is taken for one that was trained on where so many of its texts were learnt.

A copy has about 70 % of its texts in train. Files of other reviews share short texts by chance."""

_SIZE: Final = 2_000  # 21 KB of a manifest


def text_sketch(texts: Iterable[str]) -> str:
    """Return the smallest `text_key`s of *texts*, at most 2,000, as base64."""
    keys = np.unique(np.fromiter(map(text_key, texts), dtype=np.uint64))
    return base64.b64encode(keys[:_SIZE].astype(">u8").tobytes()).decode("ascii")


def share_learnt(sketch: str, texts: Iterable[str]) -> float:
    """Return the share of *texts* that the file behind *sketch* has; 0 where nothing is known."""
    known = np.frombuffer(base64.b64decode(sketch), dtype=">u8").astype(np.uint64)
    if len(known) == 0:
        return 0.0
    keys = np.fromiter(map(text_key, texts), dtype=np.uint64)
    if len(known) == _SIZE:
        keys = keys[keys <= known[-1]]
    return float(np.isin(keys, known).mean()) if len(keys) else 0.0

"""Recognises a training file by its texts, even in another order, format or name.

A bundle keeps a sketch of each training file: the smallest hashes of its texts. They are a random
sample of the texts, and any text whose hash lies in their range can be looked up exactly. The
sketch holds no text, but whoever has a text can test whether it was among the sampled ones.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

KNOWN_SHARE: Final = 0.5
"""A file counts as a training file if at least this share of its texts was learnt.

A copy has about 70 % of its texts in train. Files of other reviews share short texts by chance."""

_SIZE: Final = 2_000  # 21 KB of a manifest


def text_sketch(keys: Iterable[int]) -> str:
    """Return the smallest of *keys*, the `text_key`s of a file, at most 2,000, as base64."""
    smallest = np.unique(np.fromiter(keys, dtype=np.uint64))[:_SIZE]
    return base64.b64encode(smallest.astype(">u8").tobytes()).decode("ascii")


def share_learnt(sketch: str, keys: Sequence[int]) -> float:
    """Return the share of the texts with these *keys* that are in the file behind *sketch*.

    It is 0 if the sketch is empty, or covers none of the keys.
    """
    known = np.frombuffer(base64.b64decode(sketch), dtype=">u8").astype(np.uint64)
    if len(known) == 0:
        return 0.0
    found = np.array(keys, dtype=np.uint64)
    if len(known) == _SIZE:
        found = found[found <= known[-1]]
    return float(np.isin(found, known).mean()) if len(found) else 0.0

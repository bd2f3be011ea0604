"""A tiny bundle that also holds the weights of an encoder, as training leaves them: random ones.

`tiny.py` has it without them, which needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from sentimill_train.model.student import new_student, save_student
from tiny_bundle import LABELS, WORDS, write_tiny_bundle
from train_parts import base


def write_weighted_bundle(path: Path) -> Path:
    """Write it at *path* and return that; *path*.work beside it is scratch."""
    work = path.with_suffix(".work")
    save_student(new_student("tiny", base(work), LABELS, vocabulary=len(WORDS)), work)
    names = ("config.json", "model.safetensors")
    return write_tiny_bundle(path, more={name: work / name for name in names}).path

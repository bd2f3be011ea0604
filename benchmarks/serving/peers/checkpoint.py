"""The bundle's graph and tokenizer as a folder that transformers and optimum load.

Runs in Infinity's environment.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["write_checkpoint"]


def write_checkpoint() -> Path:
    """Write what is in PEER_BUNDLE, in the precision PEER_PRECISION, and return the folder."""
    bundle = Path(os.environ["PEER_BUNDLE"])
    manifest = json.loads((bundle / "manifest.json").read_text())
    folder = Path(tempfile.mkdtemp(prefix="sentimill-peer-"))
    graph = manifest["precisions"][os.environ["PEER_PRECISION"]]["file"]
    shutil.copy(bundle / graph, folder / "model.onnx")
    shutil.copy(bundle / "tokenizer.json", folder)
    config = json.loads((bundle / "config.json").read_text())
    config |= {"architectures": ["BertForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(config))
    special = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": manifest["max_tokens"],
        "model_input_names": ["input_ids", "attention_mask"],
        **{f"{name}_token": token for name, token in special.items()},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder

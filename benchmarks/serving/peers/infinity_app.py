"""The bundle behind Infinity, on optimum's ONNX Runtime.

Infinity hands a batch to a transformers pipeline that does not truncate long texts, and fails if a
text has more tokens than the graph has positions. So truncation is switched on here.
"""

import os
import sys
from functools import partial

import transformers
from checkpoint import write_checkpoint
from model import MAX_BATCH

if __name__ == "__main__":
    os.environ["INFINITY_ONNX_DISABLE_OPTIMIZE"] = "1"  # the graph is optimised already
    os.environ["HF_HUB_OFFLINE"] = os.environ["DO_NOT_TRACK"] = "1"
    os.environ["INFINITY_ANONYMOUS_USAGE_STATS"] = "0"
    from infinity_emb.cli import cli
    from infinity_emb.transformer.classifier import optimum

    optimum.pipeline = partial(transformers.pipeline, truncation=True)
    asked = {
        "--model-id": str(write_checkpoint()),
        "--served-model-name": "sentiment",
        "--engine": "optimum",
        "--device": "cpu",
        "--batch-size": str(MAX_BATCH),
        "--host": "127.0.0.1",
        "--port": sys.argv[1],
    }
    sys.argv[1:] = [
        "v2",
        "--no-trust-remote-code",
        *(word for pair in asked.items() for word in pair),
    ]
    cli()

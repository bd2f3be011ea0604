"""A real bundle of a few kilobytes: a bag-of-words graph and a tokenizer of a handful of words.

It is built in milliseconds, needs neither torch nor a network, and answers predictably: the words
`good` and `bad` push towards positive and negative, everything else is neutral.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import GraphProto, TensorProto, ValueInfoProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from sentimill.bundle.manifest import Base, Golden, Manifest, Precision
from sentimill.bundle.reader import Bundle
from sentimill.bundle.writer import write_bundle
from sentimill.classifier import probabilities

LABELS = ("negative", "neutral", "positive")
WORDS = ("[PAD]", "[CLS]", "[SEP]", "[UNK]", "good", "bad", "battery", "the", "fine", "poison")
_WEIGHTS = np.zeros((len(WORDS), 3), dtype=np.float32)
_WEIGHTS[WORDS.index("[CLS]")] = (0.0, 1.0, 0.0)
_WEIGHTS[WORDS.index("good")] = (0.0, 0.0, 3.0)
_WEIGHTS[WORDS.index("bad")] = (3.0, 0.0, 0.0)


def tokenizer_json() -> bytes:
    """Return a tokenizer.json in BERT's form over `WORDS`."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return str(tokenizer.to_str()).encode()


def _interface() -> tuple[list[ValueInfoProto], list[ValueInfoProto]]:
    """Return the inputs and the output of every graph of ours."""
    value = helper.make_tensor_value_info
    return [
        value("input_ids", TensorProto.INT64, ["rows", "tokens"]),
        value("attention_mask", TensorProto.INT64, ["rows", "tokens"]),
    ], [value("logits", TensorProto.FLOAT, ["rows", 3])]


def _serialized(made: GraphProto) -> bytes:
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data


def graph(*, fail_on: str | None = None, infinite: str | None = None) -> bytes:
    """Return an ONNX graph that sums word weights over the unmasked tokens.

    With *fail_on*, a batch that holds that word makes the engine raise: the graph then reads past
    the end of a table. With *infinite*, a text that holds that word gets infinite logits.
    """
    nodes = [
        helper.make_node("Gather", ["weights", "input_ids"], ["looked_up"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["wide_mask"]),
        helper.make_node("Mul", ["looked_up", "wide_mask"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens"], ["logits"], keepdims=0),
    ]
    weights = _WEIGHTS.copy() if fail_on is None else _WEIGHTS[: WORDS.index(fail_on)]
    if infinite is not None:
        weights[WORDS.index(infinite)] = np.inf
    made = helper.make_graph(
        nodes,
        "bag-of-words",
        *_interface(),
        [
            numpy_helper.from_array(weights, "weights"),
            numpy_helper.from_array(np.array([2], dtype=np.int64), "last"),
            numpy_helper.from_array(np.array([1], dtype=np.int64), "tokens"),
        ],
    )
    return _serialized(made)


def attention_graph(*, hidden: int = 32) -> bytes:
    """Return one attention head over random word vectors, then a masked mean and a linear head.

    Its sums run over tokens and over hidden sizes, as in a real encoder, so that an engine whose
    last bits follow the shape of a batch is caught. The mean is a product with two equal rows, and
    both go through the head: a product of a single row adds in another order.
    """
    random = np.random.default_rng(5)

    def weights(*shape: int) -> TensorProto:
        name = f"w{len(tensors)}"
        values = random.normal(size=shape).astype(np.float32)
        tensors.append(numpy_helper.from_array(values, name))
        return tensors[-1]

    def constant(name: str, values: object, kind: type[np.generic]) -> None:
        tensors.append(numpy_helper.from_array(np.array(values, dtype=kind), name))

    tensors: list[TensorProto] = []
    words = weights(len(WORDS), hidden).name
    query, key, value = (weights(hidden, hidden).name for _ in range(3))
    head = weights(hidden, 3).name
    constant("one", [1], np.int64)
    constant("two", [1, 2, 1], np.int64)
    constant("first", 0, np.int64)
    constant("unit", 1.0, np.float32)
    constant("low", -1e4, np.float32)
    constant("scale", hidden**-1.5, np.float32)
    node = helper.make_node
    nodes = [
        node("Gather", [words, "input_ids"], ["x"]),
        node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["mask", "one"], ["wide"]),
        node("Sub", ["unit", "wide"], ["hidden_keys"]),
        node("Mul", ["hidden_keys", "low"], ["bias"]),
        node("MatMul", ["x", query], ["q"]),
        node("MatMul", ["x", key], ["k"]),
        node("MatMul", ["x", value], ["v"]),
        node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["q", "kt"], ["products"]),
        node("Mul", ["products", "scale"], ["scaled"]),
        node("Add", ["scaled", "bias"], ["masked"]),
        node("Softmax", ["masked"], ["attention"], axis=-1),
        node("MatMul", ["attention", "v"], ["states"]),
        node("Expand", ["wide", "two"], ["twice"]),
        node("MatMul", ["twice", "states"], ["sums"]),
        node("ReduceSum", ["wide", "last"], ["count"], keepdims=1),
        node("Div", ["sums", "count"], ["mean"]),
        node("MatMul", ["mean", head], ["both"]),
        node("Gather", ["both", "first"], ["logits"], axis=1),
    ]
    constant("last", [2], np.int64)
    made = helper.make_graph(nodes, "attention", *_interface(), tensors)
    return _serialized(made)


def write_tiny_bundle(
    path: Path,
    *,
    max_tokens: int = 16,
    threshold: float | None = 0.6,
    model: bytes | None = None,
    change: Callable[[Manifest], Manifest] = lambda manifest: manifest,
    more: Mapping[str, bytes | Path] = MappingProxyType({}),
) -> Bundle:
    """Write a tiny bundle at *path*; *change* may edit the manifest before it is written.

    more: files that go into it besides the tokenizer and the graph.
    """
    logits = np.array([[0.0, 1.0, 3.0]], dtype=np.float32)
    golden = Golden(text="good battery", probs=tuple(probabilities(logits, 1.0)[0].tolist()))
    precision = Precision(
        file="onnx/fp32.onnx", temperature=1.0, max_logit_difference=0.0, parity_rows=0
    )
    manifest = Manifest(
        schema_version=1,
        name="tiny",
        version="1",
        created="2026-11-23T00:00:00Z",
        labels=LABELS,
        max_tokens=max_tokens,
        truncation="head-tail",
        pad_id=0,
        base=Base(name="bag-of-words", sha256=hashlib.sha256(b"").hexdigest()),
        precisions={"fp32": precision},
        golden=(golden,),
        files={},
        threshold=threshold,
    )
    files: dict[str, bytes | Path] = {
        "tokenizer.json": tokenizer_json(),
        "onnx/fp32.onnx": model if model is not None else graph(),
        **more,
    }
    return write_bundle(path, files, change(manifest))

"""Exports a student to one fused fp32 ONNX graph, and checks that it gives the answers of torch.

The transformer optimizer of ONNX Runtime can fuse the graph that torch's TorchScript exporter makes
with eager attention. With sdpa attention, or the exporter on torch.export, it fuses nothing.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.jit._trace import TracerWarning
from transformers import PretrainedConfig as PreTrainedConfig

from sentimill.bundle.manifest import Precision
from sentimill.classifier import BATCH_TOKENS, plan_batches
from sentimill.engine.onnx_session import open_session
from sentimill.errors import BundleError, TextError
from sentimill.text.tokenizer import TextEncoder, pad
from sentimill_train.data.tokenized import Rows, pad_rows
from sentimill_train.model.student import Student, load_student, pad_id_of

Run = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]
"""Ids and mask (rows, tokens) in, logits (rows, labels) out."""

FP32_FILE: Final = "onnx/fp32.onnx"

PARITY_LIMIT: Final = 1e-4
"""The largest difference of a logit between torch and the graph that rounding may cause."""

OPSET: Final = 17
"""The ONNX operator set, also of the nodes that the quantizers write."""
_FUSED: Final = ("bert", "roberta", "distilbert")  # the families that the optimizer can fuse


@dataclass(frozen=True, slots=True)
class Graph:
    """An exported graph in memory, and its largest difference from torch."""

    data: bytes
    run: Run
    max_logit_difference: float
    parity_rows: int

    def precision(self, temperature: float) -> Precision:
        """Return its entry in a manifest, as the fp32 graph of the bundle."""
        return Precision(
            file=FP32_FILE,
            temperature=temperature,
            max_logit_difference=self.max_logit_difference,
            parity_rows=self.parity_rows,
        )


def export_fp32(folder: Path, exporter: Callable[[Student, Path], bytes] | None = None) -> Graph:
    """Return the graph of the student saved in *folder*.

    Inputs `input_ids` and `attention_mask` int64 (rows, tokens), both sizes dynamic; output
    `logits` float32 (rows, labels). exporter: returns the fused graph, and may use the empty folder
    that it gets for files; torch's exporter and ONNX Runtime's optimizer by default.

    Raises:
        BundleError: EXPORT_NOT_FUSED, or EXPORT_PARITY with the difference.
    """
    student = load_student(folder, attention="eager")
    with tempfile.TemporaryDirectory(prefix="sentimill-") as work, _quiet():
        data = (exporter or _trace_and_fuse)(student, Path(work))
    _check_fused(data, student.config)
    run = open_graph(data)
    difference, rows = check_parity(student, run)
    return Graph(data=data, run=run, max_logit_difference=difference, parity_rows=rows)


def open_graph(data: bytes) -> Run:
    """Return a function from ids and mask, both (rows, tokens) int64, to logits, on the CPU.

    It gives the same results as a serving engine.

    Raises:
        EngineError: ENGINE_LOAD_FAILED, or ENGINE_BAD_GRAPH.
    """
    session = open_session(data, "cpu", threads=0)

    def run(ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        (logits,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
        result: NDArray[np.float32] = logits
        return result

    return run


def graph_logits(run: Run, rows: Rows, pad_id: int) -> NDArray[np.float32]:
    """Return the logits of a graph for *rows*, in their order: (rows, labels)."""
    parts: dict[int, NDArray[np.float32]] = {}
    for chosen in plan_batches(rows.lengths().tolist(), BATCH_TOKENS["cpu"]):
        parts.update(zip(chosen, run(*pad_rows(rows, chosen, pad_id)), strict=True))
    return np.stack([parts[row] for row in range(len(rows))])


def text_logits(
    run: Run, encoder: TextEncoder, pad_id: int, texts: Sequence[str]
) -> list[NDArray[np.float32] | None]:
    """Return the logits (1, labels) of each text, run alone; None if it cannot be read."""
    return [
        None if isinstance(text, TextError) else run(*pad([text.ids], pad_id))
        for text in encoder.encode(texts)
    ]


def check_parity(student: Student, run: Run) -> tuple[float, int]:
    """Return the largest difference of a logit from torch, and the number of rows compared.

    Raises:
        BundleError: EXPORT_PARITY if it is above `PARITY_LIMIT` or NaN.
    """
    worst, rows = 0.0, 0
    for batch in _parity_batches(student):
        ids, mask = pad(batch, pad_id_of(student.config))
        with torch.inference_mode():
            expected = student(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
        difference = float(np.abs(run(ids, mask) - expected).max())
        worst = difference if np.isnan(difference) else max(worst, difference)
        rows += len(batch)
        if not worst <= PARITY_LIMIT:
            raise BundleError(
                f"the exported graph differs from torch by {worst:.2e} in a logit, the limit is"
                f" {PARITY_LIMIT:.0e}: no bundle was written; report this, with the base model",
                reason="EXPORT_PARITY",
            )
    return worst, rows


def _parity_batches(student: Student) -> Iterator[list[NDArray[np.int64]]]:
    """Yield ragged batches of random ids: one row and many, equal and mixed lengths, up to 256."""
    rng = np.random.default_rng(0)
    longest = min(256, int(student.config.max_position_embeddings) - 2)
    shapes = [[1], [3], [longest], [7] * 8, [1, longest], [2, 3, 5, 8, 13, 21, 34, 55]]
    shapes += [rng.integers(1, longest + 1, size=rows).tolist() for rows in (2, 17, 32)]
    for lengths in shapes:
        yield [rng.integers(0, student.config.vocab_size, min(n, longest)) for n in lengths]


def _trace_and_fuse(student: Student, work: Path) -> bytes:
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_model

    raw = work / "raw.onnx"
    ids = torch.ones((2, 8), dtype=torch.int64)
    mask = torch.ones((2, 8), dtype=torch.int64)
    mask[1, 5:] = 0
    free = {0: "rows", 1: "tokens"}
    torch.onnx.export(
        student,
        (ids, mask),
        str(raw),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_axes={"input_ids": free, "attention_mask": free, "logits": {0: "rows"}},
        opset_version=OPSET,
        dynamo=False,
    )
    config = student.config
    if config.model_type not in _FUSED:
        return raw.read_bytes()  # the graph is correct, but slower
    options = FusionOptions("bert")
    # The session fuses norms if that is faster, which it is not on a CPU (`onnx_session`).
    options.enable_skip_layer_norm = False
    model = optimize_model(
        str(raw),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=options,
        opt_level=0,  # only these fusions: a session does the rest when it loads the graph
    )
    model.save_model_to_file(str(raw))
    return raw.read_bytes()


def _check_fused(data: bytes, config: PreTrainedConfig) -> None:
    """Raise BundleError EXPORT_NOT_FUSED unless every attention block is one node.

    config: of the exported student. Families that the optimizer cannot fuse pass.
    """
    if config.model_type not in _FUSED:
        return
    nodes = onnx.load_model_from_string(data).graph.node
    fused = sum(node.op_type in ("Attention", "MultiHeadAttention") for node in nodes)
    if fused != config.num_hidden_layers:
        raise BundleError(
            f"{fused} of {config.num_hidden_layers} attention blocks were fused: the installed"
            " versions of torch, transformers and onnxruntime do not work together; use those of"
            " constraints.txt",
            reason="EXPORT_NOT_FUSED",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings that exporters give on every run, and that users cannot avoid."""
    disabled = logging.root.manager.disable
    # The optimizer uses a dozen loggers without a common parent, and warns of small vocabularies.
    logging.disable(max(disabled, logging.WARNING))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=TracerWarning)
            warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
            warnings.filterwarnings("ignore", "You are using the legacy", DeprecationWarning)
            warnings.filterwarnings("ignore", "Exporting aten::index operator", UserWarning)
            yield
    finally:
        logging.disable(disabled)

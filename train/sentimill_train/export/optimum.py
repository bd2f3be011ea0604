"""Exports to ONNX with optimum instead of our exporter and optimizer, with the same checks.

It needs a separate environment, with the older transformers that optimum-onnx requires. optimum's
quantizer is not used: its dynamic int8 has one activation scale for a tensor, so the answer to a
text would depend on its batch. int8 is made from this fp32 graph in the same way as from ours.
"""

from __future__ import annotations

from pathlib import Path

from sentimill_train.export.onnx import OPSET, Graph, export_fp32
from sentimill_train.model.student import Student


def export_with_optimum(folder: Path) -> Graph:
    """Return the graph of the student saved in *folder*. Raises the errors of `export_fp32`."""
    return export_fp32(folder, _optimised)


def _optimised(student: Student, work: Path) -> bytes:
    from optimum.exporters.onnx import export
    from optimum.exporters.onnx.config import TextEncoderOnnxConfig
    from optimum.onnxruntime import OptimizationConfig, ORTOptimizer
    from optimum.utils import NormalizedTextConfig

    class PooledHead(TextEncoderOnnxConfig):  # type: ignore[misc] # untyped there
        """The inputs and the output of a student."""

        NORMALIZED_CONFIG_CLASS = NormalizedTextConfig

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            free = {0: "rows", 1: "tokens"}
            return {"input_ids": free, "attention_mask": free}

        @property
        def outputs(self) -> dict[str, dict[int, str]]:
            return {"logits": {0: "rows"}}

    raw = work / "model.onnx"
    config = PooledHead(student.config, task="text-classification")
    export(student, config, raw, opset=OPSET)
    # As in the default exporter: only the fusions for transformers, and no norms fused with sums,
    # because plain norms take a quarter of the time on a CPU.
    ORTOptimizer([raw], student.config).optimize(
        OptimizationConfig(
            optimization_level=0,
            enable_transformers_specific_optimizations=True,
            disable_skip_layer_norm_fusion=True,
        ),
        work / "optimised",
        file_suffix=None,
    )
    return (work / "optimised" / "model.onnx").read_bytes()

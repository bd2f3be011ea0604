"""The pooled state of a text: what the head of the student turns into logits.

A bundle's graph returns only logits. It is extended when it is loaded, so no bundle has to be
exported again. The engines and the server's queue pass the longer rows on unchanged.
"""

from __future__ import annotations

from typing import Final

from sentimill.errors import BundleError
from sentimill.installed_packages import from_extra

_OUTPUT: Final = "logits_and_states"


def with_states(graph: bytes) -> bytes:
    """Return an ONNX *graph* whose rows have the pooled state of the text after the logits.

    The pooled state is the input of the last matrix product, which is the head. The head may
    compute several equal rows per text, and a Gather keeps one: it is applied to the state as well.

    Raises:
        UsageError: the package onnx is missing.
        BundleError: the graph does not end in such a head.
    """
    with from_extra("evidence", "an index needs the package onnx"):
        import onnx
        from onnx import helper
    model = onnx.load_model_from_string(graph)
    makers = {name: n for n in model.graph.node for name in n.output if n.op_type != "Constant"}
    (output,) = model.graph.output
    node, picks = makers[output.name], None
    while node.op_type not in ("MatMul", "Gemm"):
        picks = node if node.op_type == "Gather" else picks
        inputs = [makers[name] for name in node.input if name in makers]
        if len(inputs) != 1:
            raise BundleError(
                "the model has no linear head at its end, so it has no states to compare texts by:"
                " use a bundle that `sentimill train` wrote",
                reason="BUNDLE_NO_STATES",
            )
        node = inputs[0]
    state, add = node.input[0], model.graph.node.append
    if picks is not None:
        add(helper.make_node("Gather", [state, picks.input[1]], [f"{_OUTPUT}/0"], axis=1))
        state = f"{_OUTPUT}/0"
    both = [f"{_OUTPUT}/1", f"{_OUTPUT}/2"]
    for name, made in zip((output.name, state), both, strict=True):
        add(helper.make_node("Cast", [name], [made], to=1))  # an fp16 graph may have either in fp16
    add(helper.make_node("Concat", both, [_OUTPUT], axis=1))
    output.CopyFrom(helper.make_tensor_value_info(_OUTPUT, 1, ["rows", "values"]))
    return bytes(model.SerializeToString())

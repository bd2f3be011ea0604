"""The Open Inference Protocol, version 2, over the same desk: for clients of KServe and Triton.

One input, `text`, BYTES [-1]; the outputs are in `_OUTPUTS`, one value a text. A protocol of
tensors has no place for the error of one text, so there is an output for it: `error` is empty where
a text was classified and `REASON: message` where it was not. There `label` is empty, `abstained`
true, and the numbers are NaN, so that a caller who never looks at `error` cannot take them for an
answer. What a request asks for besides (parameters) is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import grpc
import numpy as np

from sentimill.bundle.manifest import Manifest
from sentimill.errors import InputError, MissingError, SentimillError
from sentimill.server.request_handler import (
    Answers,
    Call,
    Context,
    Desk,
    decode,
    parse,
    seconds_left,
)
from sentimill.types import Prediction
from sentimill.v1 import open_inference_pb2 as pb

__all__ = ["SERVICE", "OpenInference"]

SERVICE: Final = "inference.GRPCInferenceService"
_INPUT: Final = "text"

_OUTPUTS: Final = {
    "label": "BYTES",
    "probs": "FP32",
    "score": "FP32",
    "confidence": "FP32",
    "abstained": "BOOL",
    "truncated": "BOOL",
    "error": "BYTES",
}
"""The datatype of each output, in the order in which they come."""


class OpenInference:
    """Answers the methods of `inference.GRPCInferenceService`."""

    def __init__(self, desk: Desk, *, version: str) -> None:
        self._desk = desk
        self._version = version

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the methods in the form that a gRPC server registers; others are UNIMPLEMENTED."""
        unary = grpc.unary_unary_rpc_method_handler
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "ServerLive": unary(self.server_live),
            "ServerReady": unary(self.server_ready),
            "ModelReady": unary(self.model_ready),
            "ServerMetadata": unary(self.server_metadata),
            "ModelMetadata": unary(self.model_metadata),
            "ModelInfer": unary(self.model_infer),
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    # Health needs no token, as in grpc.health.v1.

    async def server_live(self, data: bytes, context: Context) -> bytes:
        """Say that the server lives."""
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, data: bytes, context: Context) -> bytes:
        """Say whether to send calls here: not where the server is about to go."""
        return pb.ServerReadyResponse(ready=not self._desk.leaving).SerializeToString()

    async def model_ready(self, data: bytes, context: Context) -> bytes:
        """Say whether a model answers; one that is not here does not."""

        async def answer() -> bytes:
            asked = parse(pb.ModelReadyRequest, data)
            here = _is(self._desk.classifier.bundle.manifest, asked.name, asked.version)
            ready = here and not self._desk.leaving
            return pb.ModelReadyResponse(ready=ready).SerializeToString()

        return await self._desk.guard(Call("ModelReady"), context, answer)

    async def server_metadata(self, data: bytes, context: Context) -> bytes:
        """Name the server."""

        async def answer() -> bytes:
            self._desk.identify(context)
            found = pb.ServerMetadataResponse(name="sentimill", version=self._version)
            return found.SerializeToString()

        return await self._desk.guard(Call("ServerMetadata"), context, answer)

    async def model_metadata(self, data: bytes, context: Context) -> bytes:
        """Describe the tensors."""

        async def answer() -> bytes:
            self._desk.identify(context)
            asked = parse(pb.ModelMetadataRequest, data)
            manifest = self._named(asked.name, asked.version)
            tensor = pb.ModelMetadataResponse.TensorMetadata
            outputs = [
                tensor(name=name, datatype=_OUTPUTS[name], shape=shape)
                for name, shape in _shapes(manifest.labels, -1).items()
            ]
            found = pb.ModelMetadataResponse(
                name=manifest.name,
                versions=[manifest.version],
                platform="sentimill",
                inputs=[tensor(name=_INPUT, datatype="BYTES", shape=[-1])],
                outputs=outputs,
            )
            return found.SerializeToString()

        return await self._desk.guard(Call("ModelMetadata"), context, answer)

    async def model_infer(self, data: bytes, context: Context) -> bytes:
        """Classify the texts of one tensor."""

        async def answer() -> bytes:
            caller = self._desk.identify(context)
            request = parse(pb.ModelInferRequest, data)
            manifest = self._named(request.model_name, request.model_version)
            wanted = _wanted(request, manifest)
            texts = _texts(request, self._desk.limits.max_items)
            decoded = (decode(text) for text in texts)
            left = seconds_left(context)
            raw = bool(request.raw_input_contents)
            try:
                answers = await self._desk.classify(decoded, len(texts), caller, left)
            except InputError as error:  # its path is that of the other service's message
                raise InputError(str(error), reason=error.reason, field=_path(raw=raw)) from error
            response = _response(answers, wanted, raw=raw)
            response.id = request.id
            return response.SerializeToString()

        return await self._desk.guard(Call("ModelInfer"), context, answer)

    def _named(self, name: str, version: str) -> Manifest:
        manifest = self._desk.classifier.bundle.manifest
        if not _is(manifest, name, version):
            raise MissingError(
                f"there is no model {name!r} of version {version!r} here: ask for"
                f" {manifest.name!r} of version {manifest.version!r}, or of no version",
                reason="MODEL_UNKNOWN",
            )
        return manifest


def _is(manifest: Manifest, name: str, version: str) -> bool:
    return name == manifest.name and version in ("", manifest.version)


def _texts(request: pb.ModelInferRequest, max_items: int) -> Sequence[bytes]:
    """Return the values of the one input. Raises InputError where there is another.

    Of more than *max_items* one more is enough for the desk to refuse them: a message may hold two
    million empty ones, and they are unpacked on the event loop.
    """
    told = [(one.name, one.datatype, len(one.shape)) for one in request.inputs]
    if told != [(_INPUT, "BYTES", 1)]:
        seen = ", ".join(f"{one.name} {one.datatype} {list(one.shape)}" for one in request.inputs)
        raise InputError(
            f"the inputs are {seen or 'none'}: send one, {_INPUT} of type BYTES and shape [n]",
            reason="BAD_INPUTS",
            field="inputs",
        )
    (tensor,) = request.inputs
    texts: Sequence[bytes] = tensor.contents.bytes_contents
    if request.raw_input_contents:
        if len(request.raw_input_contents) > 1 or texts:
            why = "send the text either in contents or in one entry of raw_input_contents"
            raise InputError(why, reason="BAD_INPUTS", field="raw_input_contents")
        texts = list(islice(_unpacked(request.raw_input_contents[0]), max_items + 1))
    if len(texts) <= max_items and len(texts) != tensor.shape[0]:
        raise InputError(
            f"{_INPUT} has {len(texts)} values and the shape {list(tensor.shape)}: make them agree",
            reason="BAD_INPUTS",
            field="inputs[0].shape",
        )
    return texts


def _path(*, raw: bool) -> str:
    """Return where the texts are in a request."""
    return "raw_input_contents[0]" if raw else "inputs[0].contents.bytes_contents"


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Yield values that each stand behind their length in 4 bytes, little-endian."""
    at = 0
    while at < len(data):
        begin = at + 4
        at = begin + int.from_bytes(data[begin - 4 : begin], "little")
        if max(at, begin) > len(data):
            raise InputError(
                f"raw_input_contents ends inside a value at byte {len(data)}: put the length of"
                " each in 4 bytes before it, little-endian",
                reason="BAD_INPUTS",
                field=_path(raw=True),
            )
        yield data[begin:at]


def _shapes(labels: Sequence[str], rows: int) -> dict[str, list[int]]:
    """Return the outputs of a model and their shapes: only ordered labels have a score."""
    ordered = "negative" in labels and "positive" in labels
    return {
        name: [rows, len(labels)] if name == "probs" else [rows]
        for name in _OUTPUTS
        if name != "score" or ordered
    }


def _wanted(request: pb.ModelInferRequest, manifest: Manifest) -> set[str]:
    """Return the names of the outputs to give. Raises InputError where there is no such one."""
    there = _shapes(manifest.labels, -1)
    wanted = {one.name for one in request.outputs}
    if unknown := wanted - there.keys():
        why = f"there is no output {', '.join(sorted(unknown))}: there are {', '.join(there)}"
        raise InputError(why, reason="BAD_OUTPUTS", field="outputs")
    return wanted or set(there)


def _response(answers: Answers, wanted: set[str], *, raw: bool) -> pb.ModelInferResponse:
    bundle = answers.classifier.bundle
    labels = bundle.manifest.labels
    rows = [_row(one, len(labels)) for one in answers.results]
    response = pb.ModelInferResponse(
        model_name=bundle.manifest.name, model_version=bundle.manifest.version
    )
    response.parameters["model_digest"].string_param = bundle.digest
    for name, shape in _shapes(labels, len(rows)).items():
        if name not in wanted:
            continue
        datatype = _OUTPUTS[name]
        tensor = response.outputs.add(name=name, datatype=datatype, shape=shape)
        values = [value for row in rows for value in row[name]]
        if raw:
            response.raw_output_contents.append(_packed(datatype, values))
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.extend(values)
        elif datatype == "FP32":
            tensor.contents.fp32_contents.extend(values)
        else:
            tensor.contents.bool_contents.extend(values)
    return response


def _row(one: Prediction | SentimillError, labels: int) -> dict[str, Sequence[Any]]:
    """Return the values of one text by output."""
    if isinstance(one, Prediction):
        return {
            "label": [one.label.encode()],
            "probs": one.probs,
            "score": [one.score],
            "confidence": [one.confidence],
            "abstained": [one.abstained],
            "truncated": [one.truncated],
            "error": [b""],
        }
    nan = [float("nan")]
    return {
        "label": [b""],
        "probs": nan * labels,
        "score": nan,
        "confidence": nan,
        "abstained": [True],
        "truncated": [False],
        "error": [f"{one.reason}: {one}".encode()],
    }


def _packed(datatype: str, values: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(len(value).to_bytes(4, "little") + value for value in values)
    return np.array(values, dtype="<f4" if datatype == "FP32" else "?").tobytes()

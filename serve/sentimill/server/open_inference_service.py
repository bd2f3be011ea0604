"""The Open Inference Protocol, version 2, for clients of KServe and Triton.

There is one input, `text`, BYTES [-1]. The outputs are in `_OUTPUTS`, one value per text. A tensor
protocol has no place for the error of one text, so an output holds it: `error` is empty where a
text was classified and `REASON: message` where it was not. Such a text has an empty `label`, is
`abstained`, and its numbers are NaN, so that a caller who never reads `error` cannot take them for
an answer. Parameters of a request are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

import grpc
import numpy as np

from sentimill.bundle.manifest import Manifest
from sentimill.errors import InputError, MissingError, SentimillError
from sentimill.server.error_interceptor import AnyContext, seconds_left
from sentimill.server.message_parser import SMALL, FieldLimit, decode, parse, quoted, shortened
from sentimill.server.request_handler import Answers, Request, RequestHandler, slices
from sentimill.types import Prediction
from sentimill.v1 import open_inference_pb2 as pb

SERVICE: Final = "inference.GRPCInferenceService"
_INPUT: Final = "text"

_QUOTED_SIZES: Final = 8
"""An error message quotes at most this many inputs, and sizes of a shape."""

_OTHER_FIELDS: Final = 64
"""Fields that a message may have in addition to its texts: parameters, outputs, a shape."""

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


class OpenInferenceService:
    """Answers the methods of `inference.GRPCInferenceService`."""

    def __init__(self, requests: RequestHandler, *, version: str) -> None:
        self._requests = requests
        self._version = version
        sent = pb.ModelInferRequest
        values = FieldLimit(requests.limits.max_items + _OTHER_FIELDS, _path(raw=False))
        given, wanted = sent.InferInputTensor, sent.InferRequestedOutputTensor
        # An entry of a map is a message of its key and, as field 2, its value.
        parameter = FieldLimit(_OTHER_FIELDS, "parameters", {2: SMALL})
        inside = {given.CONTENTS_FIELD_NUMBER: values, given.PARAMETERS_FIELD_NUMBER: parameter}
        asked = {wanted.PARAMETERS_FIELD_NUMBER: parameter}
        parts = {
            sent.INPUTS_FIELD_NUMBER: FieldLimit(_OTHER_FIELDS, "inputs[0]", inside),
            sent.OUTPUTS_FIELD_NUMBER: FieldLimit(_OTHER_FIELDS, "outputs[0]", asked),
            sent.PARAMETERS_FIELD_NUMBER: parameter,
        }
        self._fields = FieldLimit(_OTHER_FIELDS, "inputs", parts)

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

    async def server_live(self, data: bytes, context: AnyContext) -> bytes:
        """Say that the server lives."""
        return pb.ServerLiveResponse(live=True).SerializeToString()

    async def server_ready(self, data: bytes, context: AnyContext) -> bytes:
        """Say whether to send calls here: not if the server is about to stop."""
        return pb.ServerReadyResponse(ready=self._requests.ready).SerializeToString()

    async def model_ready(self, data: bytes, context: AnyContext) -> bytes:
        """Say whether a model answers; an unknown model does not."""
        asked = parse(pb.ModelReadyRequest, data)
        here = _is(self._requests.classifier.bundle.manifest, asked.name, asked.version)
        ready = here and self._requests.ready
        return pb.ModelReadyResponse(ready=ready).SerializeToString()

    async def server_metadata(self, data: bytes, context: AnyContext) -> bytes:
        """Name the server."""
        self._requests.identify(context)
        found = pb.ServerMetadataResponse(name="sentimill", version=self._version)
        return found.SerializeToString()

    async def model_metadata(self, data: bytes, context: AnyContext) -> bytes:
        """Describe the tensors."""
        self._requests.identify(context)
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

    async def model_infer(self, data: bytes, context: AnyContext) -> bytes:
        """Classify the texts of one tensor."""
        caller = self._requests.identify(context)
        with self._requests.hold(data):
            request = parse(pb.ModelInferRequest, data, self._fields)
            manifest = self._named(request.model_name, request.model_version)
            wanted = _wanted(request, manifest)
            texts = _texts(request, self._requests.limits.max_items)
            raw = bool(request.raw_input_contents)
            asked = Request(
                texts=(decode(text) for text in texts),
                count=len(texts),
                caller=caller,
                sender=self._requests.sender(caller, context),
                seconds_left=seconds_left(context),
            )
            try:
                answers = await self._requests.classify(asked)
            except InputError as error:  # its path is that of the other service's message
                raise InputError(str(error), reason=error.reason, field=_path(raw=raw)) from error
            response = await _response(answers, wanted, raw=raw)
            response.id = request.id
            return response.SerializeToString()

    def _named(self, name: str, version: str) -> Manifest:
        manifest = self._requests.classifier.bundle.manifest
        if not _is(manifest, name, version):
            raise MissingError(
                f"there is no model {quoted(name)} of version {quoted(version)} here: ask for"
                f" {manifest.name!r} of version {manifest.version!r}, or without a version",
                reason="MODEL_UNKNOWN",
            )
        return manifest


def _is(manifest: Manifest, name: str, version: str) -> bool:
    return name == manifest.name and version in ("", manifest.version)


def _texts(request: pb.ModelInferRequest, max_items: int) -> Sequence[bytes]:
    """Return the values of the one input. Raises InputError for other inputs.

    At most *max_items* + 1 values are unpacked, enough to refuse the request: raw contents may hold
    a million empty values, and they are unpacked on the event loop.
    """
    told = [(one.name, one.datatype, len(one.shape)) for one in request.inputs]
    if told != [(_INPUT, "BYTES", 1)]:
        seen = ", ".join(
            f"{one.name} {one.datatype} {one.shape[:_QUOTED_SIZES]}"
            for one in request.inputs[:_QUOTED_SIZES]
        )
        raise InputError(
            f"the inputs are {shortened(seen) or 'none'}: send one, {_INPUT} of type BYTES and"
            " shape [n]",
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
    """Return the path of the texts in a request."""
    return "raw_input_contents[0]" if raw else "inputs[0].contents.bytes_contents"


def _unpacked(data: bytes) -> Iterator[bytes]:
    """Yield values, each of which follows its length in 4 bytes, little-endian."""
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
    """Return the names of the wanted outputs. Raises InputError for an unknown one."""
    there = _shapes(manifest.labels, -1)
    wanted = {one.name for one in request.outputs}
    if unknown := wanted - there.keys():
        said = shortened(", ".join(sorted(unknown)))
        why = f"there is no output {said}: there are {', '.join(there)}"
        raise InputError(why, reason="BAD_OUTPUTS", field="outputs")
    return wanted or set(there)


async def _response(answers: Answers, wanted: set[str], *, raw: bool) -> pb.ModelInferResponse:
    bundle = answers.classifier.bundle
    labels = bundle.manifest.labels
    rows = [_row(one, len(labels)) async for part in slices(answers.results) for one in part]
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

"""The Open Inference Protocol, called over real sockets with raw messages."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import msgspec
import numpy as np
import pytest
from google.protobuf.message import Message

from live_server import Live, live_server, live_service, until
from raw_calls import classify, connected, field_of, reason_in, status_in
from sentimill.server.access.auth import TokenAuth, new_token
from sentimill.server.lifecycle import start
from sentimill.server.open_inference_service import SERVICE
from sentimill.server.request_handler import Limits
from sentimill.server.settings import Serve
from sentimill.v1 import open_inference_pb2 as pb
from tiny_bundle import LABELS, graph, write_tiny_bundle

OUTPUTS = ["label", "probs", "score", "confidence", "abstained", "truncated", "error"]
BAD = b"caf\xe9"


async def ask(live: Live, method: str, message: Message | bytes, **options: object) -> bytes:
    """Call *method* and return the raw answer."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    async with connected(live) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(f"/{SERVICE}/{method}")
        return await call(data, **options)  # type: ignore[arg-type] # timeout or metadata


def typed(*texts: bytes, name: str = "tiny", version: str = "") -> pb.ModelInferRequest:
    """Return a request with typed contents."""
    tensor = pb.ModelInferRequest.InferInputTensor(
        name="text",
        datatype="BYTES",
        shape=[len(texts)],
        contents=pb.InferTensorContents(bytes_contents=texts),
    )
    return pb.ModelInferRequest(model_name=name, model_version=version, id="7", inputs=[tensor])


def raw(*texts: bytes) -> pb.ModelInferRequest:
    """Return the same request with its contents raw."""
    request = typed(*texts)
    request.inputs[0].ClearField("contents")
    request.raw_input_contents.append(b"".join(len(t).to_bytes(4, "little") + t for t in texts))
    return request


async def infer(
    live: Live, request: pb.ModelInferRequest, **options: object
) -> pb.ModelInferResponse:
    """Call ModelInfer."""
    return pb.ModelInferResponse.FromString(await ask(live, "ModelInfer", request, **options))


async def refused(
    live: Live, request: Message | bytes, method: str = "ModelInfer", **options: object
) -> tuple[str, str]:
    """Return code and reason with which *method* answers *request*."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await ask(live, method, request, **options)
    return caught.value.code().name, reason_in(caught.value)


async def test_typed_contents_get_typed_answers(bundle: Path) -> None:
    """Each output has its shape, and the same values as our own service gives."""
    async with live_service(bundle) as live:
        found = await infer(live, typed(b"good", b"bad", b"the " * 50))
        ours = [
            one.prediction for one in (await classify(live, "good", "bad", "the " * 50)).results
        ]

    tensors = {one.name: one for one in found.outputs}
    assert [(one.name, list(one.shape)) for one in found.outputs] == [
        (name, [3, 3] if name == "probs" else [3]) for name in OUTPUTS
    ]
    assert list(tensors["label"].contents.bytes_contents) == [b"positive", b"negative", b"neutral"]
    assert list(tensors["probs"].contents.fp32_contents) == [p for one in ours for p in one.probs]
    assert list(tensors["score"].contents.fp32_contents) == [one.score for one in ours]
    assert list(tensors["confidence"].contents.fp32_contents) == [one.confidence for one in ours]
    assert list(tensors["abstained"].contents.bool_contents) == [one.abstained for one in ours]
    assert list(tensors["truncated"].contents.bool_contents) == [False, False, True]
    assert list(tensors["error"].contents.bytes_contents) == [b"", b"", b""]
    assert (found.model_name, found.model_version, found.id) == ("tiny", "1", "7")
    assert len(found.parameters["model_digest"].string_param) == 64


async def test_raw_contents_get_raw_answers(bundle: Path) -> None:
    """They are the same values, in the protocol's bytes."""
    async with live_service(bundle) as live:
        plain = await infer(live, typed(b"good", b"bad"))
        found = await infer(live, raw(b"good", b"bad"))

    data = dict(zip((one.name for one in found.outputs), found.raw_output_contents, strict=True))
    tensors = {one.name: one.contents for one in plain.outputs}
    assert data["label"] == b"\x08\0\0\0positive\x08\0\0\0negative"
    for name in ("probs", "score", "confidence"):
        assert np.frombuffer(data[name], "<f4").tolist() == list(tensors[name].fp32_contents)
    assert data["abstained"] == bytes(tensors["abstained"].bool_contents)
    assert data["error"] == b"\0" * 8
    assert not any(one.HasField("contents") for one in found.outputs)


async def test_one_bad_text_has_its_error_beside_and_no_number(bundle: Path) -> None:
    """Its neighbours are answered, and nothing of it can be taken for an answer."""
    async with live_service(bundle) as live:
        found = await infer(live, typed(b"good", BAD, b"", b"bad"))

    tensors = {one.name: one.contents for one in found.outputs}
    reasons = [one.partition(b":")[0] for one in tensors["error"].bytes_contents]
    assert reasons == [b"", b"INVALID_UNICODE", b"EMPTY_TEXT", b""]
    assert list(tensors["label"].bytes_contents) == [b"positive", b"", b"", b"negative"]
    assert [math.isnan(p) for p in tensors["probs"].fp32_contents] == [False] * 3 + [True] * 6 + (
        [False] * 3
    )
    assert [math.isnan(p) for p in tensors["score"].fp32_contents] == [False, True, True, False]
    assert list(tensors["abstained"].bool_contents) == [False, True, True, False]


async def test_a_text_on_which_the_engine_fails_has_its_error_too(tmp_path: Path) -> None:
    """The culprit alone; the others get their answers."""
    made = write_tiny_bundle(tmp_path / "made", model=graph(fail_on="poison"))
    async with live_service(made.path) as live:
        found = await infer(live, typed(b"good", b"poison"))

    errors = next(one for one in found.outputs if one.name == "error").contents.bytes_contents
    assert [one.partition(b":")[0] for one in errors] == [b"", b"ENGINE_FAILED"]


async def test_only_the_outputs_that_were_asked_for_are_given(bundle: Path) -> None:
    """Others cost the caller nothing."""
    request = raw(b"good")
    request.outputs.add(name="label")
    async with live_service(bundle) as live:
        found = await infer(live, request)

    assert [one.name for one in found.outputs] == ["label"]
    assert len(found.raw_output_contents) == 1


async def test_labels_that_are_no_sentiments_have_no_score(tmp_path: Path) -> None:
    """Neither in the metadata nor in an answer."""
    made = write_tiny_bundle(
        tmp_path / "made", change=lambda m: msgspec.structs.replace(m, labels=("a", "b", "c"))
    )
    async with live_service(made.path) as live:
        data = await ask(live, "ModelMetadata", pb.ModelMetadataRequest(name="tiny"))
        found = await infer(live, typed(b"good"))

    names = [name for name in OUTPUTS if name != "score"]
    assert [one.name for one in pb.ModelMetadataResponse.FromString(data).outputs] == names
    assert [one.name for one in found.outputs] == names


async def test_the_metadata_describes_what_is_answered(bundle: Path) -> None:
    """Names, types and shapes, with -1 for the number of texts."""
    async with live_service(bundle) as live:
        data = await ask(live, "ModelMetadata", pb.ModelMetadataRequest(name="tiny", version="1"))
        server = await ask(live, "ServerMetadata", b"")
        answers = await infer(live, typed(b"good"))

    found = pb.ModelMetadataResponse.FromString(data)
    assert (found.name, list(found.versions)) == ("tiny", ["1"])
    assert [(t.name, t.datatype, list(t.shape)) for t in found.inputs] == [("text", "BYTES", [-1])]
    assert [(t.name, t.datatype) for t in found.outputs] == [
        (t.name, t.datatype) for t in answers.outputs
    ]
    assert list(found.outputs[1].shape) == [-1, len(LABELS)]
    assert pb.ServerMetadataResponse.FromString(server).name == "sentimill"


async def test_health_follows_the_drain(bundle: Path) -> None:
    """A draining server lives, is not ready, and refuses what comes."""
    asked = pb.ModelReadyRequest(name="tiny")
    async with live_service(bundle) as live:
        before = await ask(live, "ServerReady", b""), await ask(live, "ModelReady", asked)
        live.service.drain()
        after = await ask(live, "ServerReady", b""), await ask(live, "ModelReady", asked)
        alive = await ask(live, "ServerLive", b"")
        why = await refused(live, typed(b"good"))

    ready = pb.ServerReadyResponse.FromString
    assert [ready(data).ready for data in (*before, *after)] == [True, True, False, False]
    assert pb.ServerLiveResponse.FromString(alive).live
    assert why == ("UNAVAILABLE", "DRAINING")


async def test_readiness_goes_first_and_calls_are_answered_during_the_notice(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer that asks for it has the notice to send its calls elsewhere."""
    began, over, sleep = asyncio.Event(), asyncio.Event(), asyncio.sleep

    async def noticed(seconds: float) -> None:
        if seconds != 3600:
            return await sleep(seconds)
        began.set()
        await over.wait()

    monkeypatch.setattr(asyncio, "sleep", noticed)
    config = Serve(
        bundle=bundle, port=0, metrics_port=0, threads=1, open_inference=True, notice_seconds=3600
    )
    asked = pb.ModelReadyRequest(name="tiny").SerializeToString()
    async with AsyncExitStack() as stack:
        serving = await start(config, stack)
        async with grpc.aio.insecure_channel(serving.address) as channel:

            async def call(method: str, data: bytes = b"") -> bytes:
                method_: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
                method_ = channel.unary_unary(f"/{SERVICE}/{method}")
                return await method_(data)

            before = await call("ServerReady"), await call("ModelReady", asked)
            leaving = asyncio.create_task(stack.aclose())
            await began.wait()
            after = await call("ServerReady"), await call("ModelReady", asked)
            answer = await call("ModelInfer", typed(b"good").SerializeToString())
        over.set()
        await leaving

    assert (before, after) == ((b"\x08\x01",) * 2, (b"",) * 2)
    assert pb.ModelInferResponse.FromString(answer).outputs[0].contents.bytes_contents == [
        b"positive"
    ]


@pytest.mark.parametrize(("name", "version"), [("huge", ""), ("tiny", "2"), ("", "")])
async def test_a_model_that_is_not_here_is_not_found(bundle: Path, name: str, version: str) -> None:
    """It is not ready either."""
    async with live_service(bundle) as live:
        why = await refused(live, typed(b"good", name=name, version=version))
        asked = pb.ModelReadyRequest(name=name, version=version)
        ready = pb.ModelReadyResponse.FromString(await ask(live, "ModelReady", asked)).ready
        told = await refused(
            live, pb.ModelMetadataRequest(name=name, version=version), "ModelMetadata"
        )

    assert why == told == ("NOT_FOUND", "MODEL_UNKNOWN")
    assert not ready


def changed(**fields: object) -> pb.ModelInferRequest:
    """Return a request for one text, with *fields* of its tensor changed."""
    request = typed(b"good")
    tensor = pb.ModelInferRequest.InferInputTensor(**fields)  # type: ignore[arg-type] # by name
    if "shape" in fields:
        request.inputs[0].ClearField("shape")
    request.inputs[0].MergeFrom(tensor)
    return request


def cut(size: int) -> pb.ModelInferRequest:
    """Return a raw request that ends too early."""
    request = raw(b"good", b"bad")
    request.raw_input_contents[0] = request.raw_input_contents[0][:size]
    return request


def endless() -> pb.ModelInferRequest:
    """Return a raw request for more texts than are accepted, and broken behind them."""
    request = raw(*[b""] * 5)
    request.raw_input_contents[0] += b"\1"
    return request


def twice() -> pb.ModelInferRequest:
    """Return a request that says its text in both ways."""
    request = typed(b"good")
    request.raw_input_contents.append(raw(b"good").raw_input_contents[0])
    return request


def wanting(name: str) -> pb.ModelInferRequest:
    """Return a request for the output *name*."""
    request = typed(b"good")
    request.outputs.add(name=name)
    return request


TYPED, RAW = "inputs[0].contents.bytes_contents", "raw_input_contents[0]"


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        (pb.ModelInferRequest(model_name="tiny"), "BAD_INPUTS", "inputs"),
        (changed(name="TEXT"), "BAD_INPUTS", "inputs"),
        (changed(datatype="INT64"), "BAD_INPUTS", "inputs"),
        (changed(shape=[2]), "BAD_INPUTS", "inputs[0].shape"),
        (changed(shape=[-1]), "BAD_INPUTS", "inputs[0].shape"),
        (changed(shape=[1, 1]), "BAD_INPUTS", "inputs"),
        (cut(2), "BAD_INPUTS", RAW),
        (cut(6), "BAD_INPUTS", RAW),
        (cut(8), "BAD_INPUTS", "inputs[0].shape"),  # one whole text where two are promised
        (twice(), "BAD_INPUTS", "raw_input_contents"),
        (wanting("logits"), "BAD_OUTPUTS", "outputs"),
        (typed(), "ITEM_COUNT", TYPED),
        (typed(*[b"good"] * 5), "ITEM_COUNT", TYPED),
        (raw(*[b"good"] * 5), "ITEM_COUNT", RAW),
        (endless(), "ITEM_COUNT", RAW),  # what is refused anyway is not read to its end
        (b"\xff\xff", "MALFORMED_REQUEST", None),
    ],
)
async def test_a_request_that_does_not_fit_is_refused_whole(
    bundle: Path, request_: Message | bytes, reason: str, field: str | None
) -> None:
    """The code is INVALID_ARGUMENT, reason and path are stable, and nothing stays counted in."""
    async with live_service(bundle, limits=Limits(max_items=4)) as live:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(live, "ModelInfer", request_)
        assert live.admission.texts == 0

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (reason_in(caught.value), field_of(status_in(caught.value))) == (reason, field)


async def test_what_is_not_here_is_unimplemented(bundle: Path) -> None:
    """Methods of Triton's own, for one."""
    async with live_service(bundle) as live:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(live, "RepositoryIndex", b"")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_queue_deadlines_and_metrics_are_those_of_our_service(bundle: Path) -> None:
    """A full queue refuses, a late call is dropped before it is computed, and both are counted."""
    async with live_service(bundle, limits=Limits(max_waiting_texts=8), gated=True) as live:
        async with connected(live) as channel:
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            call = channel.unary_unary(f"/{SERVICE}/ModelInfer")
            first = call(typed(b"good", b"bad", b"the").SerializeToString())
            await live.gate.entered()
            late = call(typed(b"good").SerializeToString(), timeout=3)
            await until(lambda: live.admission.texts == 4)
            full = await refused(live, typed(*[b"good"] * 5))
            code = await late.code()
            await until(lambda: live.admission.texts == 3)
            live.gate.open()
            await first
        requests = live.value("sentimill_requests_total", method="ModelInfer", code="UNAVAILABLE")

    assert full == ("UNAVAILABLE", "QUEUE_FULL")
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert requests == 1
    assert live.gate.calls == [3]


async def test_tokens_are_asked_for_and_quotas_held(bundle: Path, tmp_path: Path) -> None:
    """Health alone is open, as it is in grpc.health.v1."""
    token, line = new_token("anna", 0.1)
    (tmp_path / "tokens").write_text(line + "\n")
    shown = (("authorization", f"Bearer {token}"),)
    async with live_service(bundle, auth=TokenAuth(tmp_path / "tokens")) as live:
        bare = [
            await refused(live, typed(b"good")),
            await refused(live, pb.ModelMetadataRequest(name="tiny"), "ModelMetadata"),
            await refused(live, b"", "ServerMetadata"),
        ]
        live_, ready = await ask(live, "ServerLive", b""), await ask(live, "ServerReady", b"")
        await infer(live, typed(b"good", b"bad"), metadata=shown)
        used_up = await refused(live, typed(b"good"), metadata=shown)

    assert bare == [("UNAUTHENTICATED", "TOKEN_MISSING")] * 3
    assert (live_, ready) == (b"\x08\x01", b"\x08\x01")
    assert used_up == ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED")


@pytest.mark.parametrize("asked", [False, True])
def test_it_is_answered_only_where_it_was_asked_for(bundle: Path, asked: bool) -> None:
    """Off by default, on by a flag."""
    config = Serve(bundle=bundle, port=0, metrics_port=0, threads=1, open_inference=asked)
    with live_server(config) as serving, grpc.insecure_channel(serving.address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(f"/{SERVICE}/ServerReady")
        try:
            code = call.with_call(b"", timeout=30)[1].code()
        except grpc.RpcError as error:
            assert isinstance(error, grpc.Call)
            code = error.code()

    assert code is (grpc.StatusCode.OK if asked else grpc.StatusCode.UNIMPLEMENTED)


UNKNOWN = b"\xfa\x01\x00" * 1000
"""Fields that no message of the protocol has."""


@pytest.mark.parametrize(
    "request_",
    [
        pb.ModelInferRequest(model_name="tiny", inputs=[{}] * 100_000),
        pb.ModelInferRequest(model_name="tiny", outputs=[{}] * 100_000),
        typed(*[b""] * 100_000),
        pb.ModelInferRequest(raw_input_contents=[b""] * 100_000),
        pb.ModelInferRequest(parameters={str(i): pb.InferParameter() for i in range(1000)}),
        pb.ModelInferRequest(parameters={"x": pb.InferParameter.FromString(UNKNOWN)}),
        pb.ModelInferRequest(
            inputs=[{"parameters": {str(i): pb.InferParameter() for i in range(1000)}}]
        ),
        pb.ModelInferRequest(
            outputs=[{"parameters": {str(i): pb.InferParameter() for i in range(1000)}}]
        ),
    ],
    ids=["inputs", "outputs", "values", "raw", "parameters", "one", "an input's", "an output's"],
)
async def test_long_lists_are_refused_before_they_are_built(
    bundle: Path, request_: pb.ModelInferRequest
) -> None:
    """Four million empty inputs once held the event loop for 7.7 s."""
    async with live_service(bundle) as live:
        code, reason = await refused(live, request_)

    assert (code, reason) == ("INVALID_ARGUMENT", "ITEM_COUNT")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.ModelInferRequest(model_name="x" * (1 << 20)), "MODEL_UNKNOWN"),
        (pb.ModelInferRequest(inputs=[{"name": "x" * (1 << 20)}]), "BAD_INPUTS"),
        (pb.ModelInferRequest(inputs=[{"name": "x", "shape": range(1 << 20)}]), "BAD_INPUTS"),
        (pb.ModelInferRequest(outputs=[{"name": "x" * (1 << 20)}]), "BAD_OUTPUTS"),
    ],
    ids=["a model", "an input", "a shape", "an output"],
)
async def test_what_was_sent_is_quoted_up_to_100_characters(
    bundle: Path, request_: pb.ModelInferRequest, reason: str
) -> None:
    """A name of 8 MiB once came back as trailers of 33 MB."""
    request_.model_name = request_.model_name or "tiny"
    async with live_service(bundle) as live:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(live, "ModelInfer", request_)

    assert reason_in(caught.value) == reason
    assert len(str(caught.value.details())) < 300

"""The gRPC handlers, called over real sockets with raw messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from live import Live, live_service, until
from sentimill.service import SERVICE, Limits
from sentimill.text import MAX_TEXT_BYTES
from sentimill.v1 import sentiment_pb2 as pb
from tiny import LABELS, graph, write_tiny_bundle


@asynccontextmanager
async def connected(live: Live) -> AsyncIterator[grpc.aio.Channel]:
    """Connect to *live* without a client of ours."""
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(live.address, options=options) as channel:
        yield channel


def request_of(*texts: str | bytes | None) -> pb.ClassifyRequest:
    """Return a request with a text, bytes or nothing in each item."""
    items = [
        pb.ClassifyItem(text=text) if isinstance(text, str) else pb.ClassifyItem(utf8=text)
        for text in texts
    ]
    return pb.ClassifyRequest(items=items)


async def send(
    live: Live, message: Message | bytes, *, method: str = "Classify", timeout: float | None = None
) -> bytes:
    """Call *method* and return the raw answer."""
    data = message if isinstance(message, bytes) else message.SerializeToString()
    async with connected(live) as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(f"/{SERVICE}/{method}")
        return await call(data, timeout=timeout)


async def classify(
    live: Live, *texts: str | bytes | None, timeout: float | None = None
) -> pb.ClassifyResponse:
    """Call Classify."""
    data = await send(live, request_of(*texts), timeout=timeout)
    return pb.ClassifyResponse.FromString(data)


async def refusal(live: Live, message: Message | bytes) -> grpc.aio.AioRpcError:
    """Return the error with which Classify answers *message*."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await send(live, message)
    return caught.value


def reason_of(status: status_pb2.Status) -> str:
    """Return the reason in a status, which must be of our domain."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "sentimill"
    return str(info.reason)


def reason_in(error: grpc.aio.AioRpcError) -> str:
    """Return the reason in the trailers of an error, whose code and message agree with it."""
    (details,) = [v for k, v in error.trailing_metadata() if k == "grpc-status-details-bin"]
    assert isinstance(details, bytes)
    status = status_pb2.Status.FromString(details)
    assert (status.code, status.message) == (error.code().value[0], error.details())
    return reason_of(status)


def outcomes(response: pb.ClassifyResponse) -> list[str]:
    """Return the label of each result, or the reason of its error."""
    return [
        result.prediction.label if result.HasField("prediction") else reason_of(result.error)
        for result in response.results
    ]


async def test_results_come_in_request_order(bundle: Path) -> None:
    """Each text has one result, in its own place, whatever its length."""
    async with live_service(bundle, budget=20) as live:
        found = await classify(live, "good", "bad " * 9, "the", "good " * 5, "bad")

    assert outcomes(found) == ["positive", "negative", "neutral", "positive", "negative"]


async def test_a_prediction_carries_every_field(bundle: Path) -> None:
    """Label, probs in label order, score, confidence, marks and tokens are there."""
    async with live_service(bundle) as live:
        found = (await classify(live, "good " * 50)).results[0].prediction

    assert sum(found.probs) == pytest.approx(1.0, abs=1e-6)
    assert found.probs[LABELS.index("positive")] == found.confidence
    assert found.score == pytest.approx(found.probs[2] - found.probs[0], abs=1e-6)
    assert (found.truncated, found.abstained, found.tokens) == (True, False, 16)


async def test_a_response_names_the_model_and_the_times(bundle: Path) -> None:
    """The digest is the bundle's, and the parts of the time are within the whole."""
    async with live_service(bundle) as live:
        found = await classify(live, "good")

    times = found.timings
    assert len(found.model_digest) == 64
    assert 0 < times.engine_seconds < times.total_seconds
    assert 0 <= times.tokenize_seconds < times.total_seconds
    assert 0 <= times.queue_seconds < times.total_seconds


async def test_one_bad_text_never_fails_its_neighbours(bundle: Path) -> None:
    """Each bad text has its own status with a stable reason."""
    texts = ["good", "", "\x00\x07", b"", b"caf\xe9", b"\xed\xa0\x80", None, "bad"]
    async with live_service(bundle) as live:
        found = await classify(live, *texts)

    assert outcomes(found) == [
        "positive",
        "EMPTY_TEXT",
        "EMPTY_TEXT",
        "EMPTY_TEXT",
        "INVALID_UNICODE",
        "INVALID_UNICODE",
        "EMPTY_TEXT",
        "negative",
    ]
    codes = {result.error.code for result in found.results if result.HasField("error")}
    assert codes == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}


async def test_text_and_bytes_give_the_same(bundle: Path) -> None:
    """Both forms of an item mean the same text, in every script."""
    text = "good 👍🏽 رائع &amp; <br> \x1b"
    async with live_service(bundle) as live:
        one, two = (await classify(live, text, text.encode())).results

    assert one == two


async def test_a_megabyte_is_classified_and_more_is_not(bundle: Path) -> None:
    """The limit on a text is one of the text."""
    async with live_service(bundle) as live:
        found = await classify(live, "x" * MAX_TEXT_BYTES, "x" * (MAX_TEXT_BYTES + 1), "good")

    assert outcomes(found) == ["neutral", "TEXT_TOO_LARGE", "positive"]
    assert found.results[0].prediction.truncated


async def test_only_bad_texts_need_no_engine(bundle: Path) -> None:
    """A request without one good text is answered all the same."""
    async with live_service(bundle, gated=True) as live:
        found = await classify(live, "", "\x00")

    assert outcomes(found) == ["EMPTY_TEXT", "EMPTY_TEXT"]


async def test_a_text_on_which_the_engine_fails_is_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its neighbours get answers, and the log does not hold its words."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    async with live_service(made.path) as live:
        found = await classify(live, "good", "secret poison", "bad")

    assert outcomes(found) == ["positive", "ENGINE_FAILED", "negative"]
    assert found.results[1].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert "engine failed" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("count", [0, 4])
async def test_a_wrong_number_of_items_is_refused(bundle: Path, count: int) -> None:
    """None is a mistake, and too many are to be split."""
    async with live_service(bundle, limits=Limits(max_items=3)) as live:
        error = await refusal(live, request_of(*["good"] * count))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_in(error) == "ITEM_COUNT"
    assert f"items has {count} texts, the limits are 1 and 3" in str(error.details())


@pytest.mark.parametrize(
    "data",
    [b"\xff\xff\xff", request_of("aXc").SerializeToString().replace(b"X", b"\xff")],
    ids=["no message", "a text that is not UTF-8"],
)
async def test_a_malformed_message_is_refused_with_a_reason(bundle: Path, data: bytes) -> None:
    """Even what protobuf refuses gets a code, a reason and a remedy."""
    async with live_service(bundle) as live:
        error = await refusal(live, data)

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_in(error) == "MALFORMED_REQUEST"
    assert "utf8" in str(error.details())


async def test_a_message_beyond_the_limit_is_refused(bundle: Path) -> None:
    """A caller cannot make the server hold more than the limit."""
    async with live_service(bundle, limits=Limits(max_request_bytes=1000)) as live:
        error = await refusal(live, request_of("x" * 2000))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_full_queue_refuses_at_once_and_says_when_to_come_back(bundle: Path) -> None:
    """UNAVAILABLE with a reason and a pushback; what is queued is served."""
    async with live_service(bundle, limits=Limits(max_waiting_texts=2), gated=True) as live:
        queued = asyncio.create_task(classify(live, "good", "bad"))
        await live.gate.entered()
        error = await refusal(live, request_of("good"))
        live.gate.open()
        found = await queued

    trailers = dict(error.trailing_metadata())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_in(error) == "QUEUE_FULL"
    assert 100 <= int(trailers["grpc-retry-pushback-ms"]) <= 30_000
    assert outcomes(found) == ["positive", "negative"]
    assert live.value("sentimill_refused_requests_total", reason="QUEUE_FULL") == 1


async def test_too_many_tokens_refuse_too(bundle: Path) -> None:
    """Admission counts tokens as well as texts, and a refused call leaves nothing counted."""
    async with live_service(bundle, limits=Limits(max_waiting_tokens=5)) as live:
        error = await refusal(live, request_of("good the the the"))
        assert (live.admission.texts, live.admission.tokens) == (0, 0)
        assert outcomes(await classify(live, "good")) == ["positive"]

    assert reason_in(error) == "QUEUE_FULL"


async def test_a_draining_service_refuses_new_calls(bundle: Path) -> None:
    """Another instance will answer, so the code is one that callers retry."""
    async with live_service(bundle) as live:
        live.service.draining = True
        error = await refusal(live, request_of("good"))

    assert (error.code(), reason_in(error)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")


async def test_a_deadline_that_passes_frees_the_queue(bundle: Path) -> None:
    """The caller gets DEADLINE_EXCEEDED, and its texts are never computed."""
    async with live_service(bundle, gated=True) as live:
        ahead = asyncio.create_task(classify(live, "good"))
        await live.gate.entered()
        behind = asyncio.create_task(classify(live, "the"))
        await until(lambda: live.admission.tokens == 6)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await classify(live, "bad", "bad", timeout=0.2)
        await until(lambda: live.admission.texts == 2)
        live.gate.open()
        await asyncio.gather(ahead, behind)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert sum(live.gate.calls) == 2


async def test_a_caller_who_hangs_up_frees_the_queue(bundle: Path) -> None:
    """Cancelled work is dropped before it is computed, and nothing stays counted."""
    async with live_service(bundle, gated=True) as live:
        ahead = asyncio.create_task(classify(live, "good"))
        await live.gate.entered()
        behind = asyncio.create_task(classify(live, "the"))
        await until(lambda: live.admission.tokens == 6)
        gone = asyncio.create_task(classify(live, "bad", "bad"))
        await until(lambda: live.admission.tokens == 12)
        gone.cancel()
        await until(lambda: live.admission.texts == 2)
        live.gate.open()
        await asyncio.gather(ahead, behind)
        await until(lambda: live.value("sentimill_dropped_texts_total") == 2)

    assert sum(live.gate.calls) == 2
    assert live.value("sentimill_requests_total", method="Classify", code="CANCELLED") == 1


async def test_what_is_not_ours_is_internal_and_not_shown(
    bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug is logged with its trace, and the caller sees only that it was one."""
    async with live_service(bundle) as live:
        live.service.close()
        with caplog.at_level(logging.ERROR):
            error = await refusal(live, request_of("good"))

    assert (error.code(), reason_in(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert error.details() == "internal error, see the server's log"
    assert "cannot schedule new futures" in caplog.text


async def test_probs_do_not_depend_on_who_else_calls(bundle: Path) -> None:
    """Callers at the same time share batches and get the bits that they would get alone."""
    texts = ["good", "good bad", "the " * 9, "battery bad bad"]
    async with live_service(bundle) as live:
        alone = [(await classify(live, text)).results[0] for text in texts]
        together = await asyncio.gather(*[classify(live, *texts[i:]) for i in range(4)] * 5)

    for i, found in enumerate(together):
        assert list(found.results) == alone[i % 4 :]


async def test_get_model_tells_the_model_and_the_limits(bundle: Path) -> None:
    """A caller learns what it needs to send good requests."""
    limits = Limits(max_items=7)
    async with live_service(bundle, limits=limits) as live:
        data = await send(live, pb.GetModelRequest(), method="GetModel")
    found = pb.GetModelResponse.FromString(data)

    assert (found.name, found.version, tuple(found.labels)) == ("tiny", "1", LABELS)
    assert (found.max_tokens, found.precision, found.provider) == (16, "fp32", "cpu")
    assert found.threshold == pytest.approx(0.6)
    assert (found.limits.max_items, found.limits.max_text_bytes) == (7, MAX_TEXT_BYTES)
    assert found.limits.max_request_bytes == limits.max_request_bytes


async def test_calls_and_texts_are_counted(bundle: Path) -> None:
    """By method and code, and by label or reason."""
    async with live_service(bundle) as live:
        await classify(live, "good", "good", "", "x " * 99)
        await refusal(live, request_of())

    assert live.value("sentimill_requests_total", method="Classify", code="OK") == 1
    assert live.value("sentimill_requests_total", method="Classify", code="INVALID_ARGUMENT") == 1
    assert live.value("sentimill_request_seconds_count", method="Classify") == 2
    assert live.value("sentimill_texts_total", outcome="positive") == 2
    assert live.value("sentimill_texts_total", outcome="EMPTY_TEXT") == 1
    assert live.value("sentimill_truncated_texts_total") == 1
    assert live.value("sentimill_waiting_texts") == 0


async def test_an_unknown_method_is_unimplemented(bundle: Path) -> None:
    """Nothing but the contract is answered."""
    async with live_service(bundle) as live:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(live, b"", method="Explain")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def our_tasks() -> list[str]:
    """Return the names of the service's coroutines that run as tasks; gRPC has its own."""
    coroutines = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in coroutines if name.startswith("SentimentService.")]


StreamCall = grpc.aio.StreamStreamCall[bytes, bytes]


@asynccontextmanager
async def streaming(live: Live) -> AsyncIterator[StreamCall]:
    """Open a ClassifyStream."""
    async with connected(live) as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = channel.stream_stream(f"/{SERVICE}/ClassifyStream")
        call = method()
        yield call


async def write(call: StreamCall, number: int, texts: Sequence[str]) -> None:
    """Send one request."""
    message = pb.ClassifyStreamRequest(id=number, request=request_of(*texts))
    await call.write(message.SerializeToString())


async def read(call: StreamCall) -> pb.ClassifyStreamResponse:
    """Receive one response."""
    data = await call.read()
    assert isinstance(data, bytes)
    return pb.ClassifyStreamResponse.FromString(data)


async def test_a_stream_answers_each_request_before_the_next_comes(bundle: Path) -> None:
    """A caller may wait for an answer before it goes on."""
    async with live_service(bundle) as live, streaming(live) as call:
        for number, text in enumerate(["good", "bad", "the"]):
            await write(call, number, [text])
            found = await read(call)
            assert (found.id, len(found.response.results)) == (number, 1)
        await call.done_writing()

        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_keeps_the_order_of_its_requests(bundle: Path) -> None:
    """Long and short requests do not overtake one another."""
    async with live_service(bundle, budget=20) as live, streaming(live) as call:

        async def write_all() -> None:
            for number in range(50):
                await write(call, number, ["good the the the"] * (1 + 20 * (number % 3 == 0)))
            await call.done_writing()

        writer = asyncio.create_task(write_all())
        found = [await read(call) for _ in range(50)]
        await writer

    assert [one.id for one in found] == list(range(50))
    assert {name for one in found for name in outcomes(one.response)} == {"positive"}


async def test_an_error_of_one_request_is_in_its_response(bundle: Path) -> None:
    """The stream goes on after it."""
    async with live_service(bundle) as live, streaming(live) as call:
        await write(call, 1, [])
        await call.write(b"\xff\xff\xff")
        await write(call, 3, ["good", ""])
        await call.done_writing()
        empty, malformed, good = [await read(call) for _ in range(3)]

    assert (empty.id, reason_of(empty.error)) == (1, "ITEM_COUNT")
    assert reason_of(malformed.error) == "MALFORMED_REQUEST"
    assert outcomes(good.response) == ["positive", "EMPTY_TEXT"]


async def test_an_empty_stream_ends_well(bundle: Path) -> None:
    """No requests, no responses, no error."""
    async with live_service(bundle) as live, streaming(live) as call:
        await call.done_writing()

        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_is_read_only_a_little_ahead(bundle: Path) -> None:
    """A caller that floods its stream fills its own window and not the queue."""
    async with live_service(bundle, gated=True) as live, streaming(live) as call:
        writer = asyncio.create_task(write_all(call, 100))
        await live.gate.entered()
        for _ in range(50):
            await asyncio.sleep(0)
        ahead = live.admission.texts
        live.gate.open()
        found = [await read(call) for _ in range(100)]
        await writer

    assert 1 <= ahead <= 8
    assert [one.id for one in found] == list(range(100))


async def write_all(call: StreamCall, count: int) -> None:
    """Send *count* requests of one text."""
    for number in range(count):
        await write(call, number, ["good"])


async def test_a_caller_who_leaves_its_stream_leaves_no_tasks_behind(bundle: Path) -> None:
    """Answers under way, queued ones and the reader all end, and nothing stays counted."""
    async with live_service(bundle, gated=True) as live:
        async with streaming(live) as call:
            writer = asyncio.create_task(write_all(call, 20))
            await live.gate.entered()
            await until(lambda: live.admission.texts >= 4)
            call.cancel()
            await asyncio.gather(writer, return_exceptions=True)
        await until(lambda: live.admission.texts == 0)
        await until(lambda: not our_tasks())

    assert (live.admission.texts, live.admission.tokens) == (0, 0)


async def test_a_stream_with_a_message_beyond_the_limit_ends(bundle: Path) -> None:
    """The call fails and leaves no tasks behind."""
    async with live_service(bundle, limits=Limits(max_request_bytes=1000)) as live:
        async with streaming(live) as call:
            await write(call, 1, ["good"])
            await read(call)
            await write(call, 2, ["x" * 2000])

            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: not our_tasks())


async def test_a_draining_service_refuses_in_the_stream(bundle: Path) -> None:
    """An open stream hears of it at its next request."""
    async with live_service(bundle) as live, streaming(live) as call:
        await write(call, 1, ["good"])
        assert outcomes((await read(call)).response) == ["positive"]
        live.service.draining = True
        await write(call, 2, ["good"])

        assert reason_of((await read(call)).error) == "DRAINING"

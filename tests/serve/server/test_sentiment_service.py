"""The unary gRPC handlers, called over real sockets with raw messages."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
from contextlib import nullcontext
from pathlib import Path

import grpc
import pytest

from live_server import live_service, until
from raw_calls import (
    classify,
    connected,
    field_of,
    outcomes,
    reason_in,
    refusal,
    request_of,
    send,
    status_in,
)
from sentimill.engine.failures import FAILED
from sentimill.errors import InputError
from sentimill.server.access.auth import TokenAuth, new_token
from sentimill.server.request_handler import Limits, slices
from sentimill.server.sentiment_service import SERVICE
from sentimill.types import MAX_TEXT_BYTES
from sentimill.v1 import sentiment_pb2 as pb
from tiny_bundle import LABELS, graph, write_tiny_bundle


async def test_results_come_in_request_order(bundle: Path) -> None:
    """Each text has one result, in its own place, whatever its length."""
    async with live_service(bundle, budget=20) as live:
        found = await classify(live, "good", "bad " * 9, "the", "good " * 5, "bad")

    assert outcomes(found) == ["positive", "negative", "neutral", "positive", "negative"]


async def test_a_large_request_lets_others_in_between(bundle: Path) -> None:
    """Its answer is made in slices, in order, and other callers need not wait for the last one."""
    turns: list[int] = []

    async def count() -> None:
        while True:
            turns.append(len(turns))
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    sizes, seen = [], []
    async for part in slices(range(200)):
        sizes.append(len(part))
        seen.append(len(turns))
    counting.cancel()
    words = {"good": "positive", "": "EMPTY_TEXT", "bad": "negative"}
    texts = [*words] * 60
    async with live_service(bundle) as live:
        found = await classify(live, *texts)

    assert sizes == [64, 64, 64, 8]
    assert seen == [0, 1, 2, 3]
    assert outcomes(found) == [words[text] for text in texts]


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
    assert [field_of(result.error) for result in found.results if result.HasField("error")] == [
        "items[1].text",
        "items[2].text",
        "items[3].utf8",
        "items[4].utf8",
        "items[5].utf8",
        "items[6]",
    ]


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
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its neighbours get answers, and the log does not hold its words."""
    monkeypatch.setattr("sentimill.engine.failures._LOG_EVERY_S", 0.0)
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    async with live_service(made.path) as live:
        found = await classify(live, "good", "secret poison", "bad")

    assert outcomes(found) == ["positive", "ENGINE_FAILED", "negative"]
    assert found.results[1].error.code == grpc.StatusCode.INTERNAL.value[0]
    assert field_of(found.results[1].error) is None
    assert found.results[1].error.message == FAILED
    assert "ONNX Runtime failed: " in caplog.text
    assert "secret" not in caplog.text


async def test_a_text_that_gets_no_finite_number_is_alone(tmp_path: Path) -> None:
    """It is an error and no label, and the sums of the metrics stay numbers."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(infinite="poison"))
    async with live_service(made.path) as live:
        found = await classify(live, "good", "bad poison", "bad")
        summed = live.value("sentimill_confidence_ratio_sum")

    assert outcomes(found) == ["positive", "ENGINE_FAILED", "negative"]
    assert summed is not None
    assert math.isfinite(summed)


@pytest.mark.parametrize("count", [0, 4])
async def test_a_wrong_number_of_items_is_refused(bundle: Path, count: int) -> None:
    """None is a mistake, and too many are to be split."""
    async with live_service(bundle, limits=Limits(max_items=3)) as live:
        error = await refusal(live, request_of(*["good"] * count))

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_in(error) == "ITEM_COUNT"
    assert f"items has {count} texts, the limit is 1 to 3" in str(error.details())
    assert field_of(status_in(error)) == "items"


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
    assert field_of(status_in(error)) is None  # what cannot be read has no paths
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


async def test_a_request_larger_than_the_queue_is_not_to_be_tried_again(bundle: Path) -> None:
    """What never fits is no matter of waiting: not retryable, and nothing of it stays counted."""
    async with live_service(bundle, limits=Limits(max_waiting_tokens=5)) as live:
        error = await refusal(live, request_of("good", "good"))
        assert (live.admission.texts, live.admission.tokens) == (0, 0)
        assert outcomes(await classify(live, "good")) == ["positive"]

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_in(error) == "REQUEST_TOO_LARGE"
    assert field_of(status_in(error)) == "items"


async def test_what_the_queue_refuses_costs_no_quota(bundle: Path, tmp_path: Path) -> None:
    """Tokens are counted after the quota was taken, which the caller then gets back."""
    path = tmp_path / "tokens"
    token, line = new_token("anna", 0.001)
    path.write_text(line)
    callers = TokenAuth(path)
    caller = callers.identify([("authorization", f"Bearer {token}")])
    before = caller.left
    limits = Limits(max_waiting_tokens=5)
    async with live_service(bundle, limits=limits, auth=callers) as live:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(live, request_of("good", "good"), token=token)

    assert reason_in(caught.value) == "REQUEST_TOO_LARGE"
    assert caller.left == pytest.approx(before)


async def test_a_draining_service_refuses_new_calls(bundle: Path) -> None:
    """Another instance will answer, so the code is one that callers retry."""
    async with live_service(bundle) as live:
        live.service.drain()
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
        await live.slot.now.close()
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


async def test_bulk_work_is_counted_apart(bundle: Path) -> None:
    """Answered or refused: it may take its time, and an objective for others is not about it."""
    async with live_service(bundle, limits=Limits(max_items=1)) as live:
        for texts in (["good"], ["good", "bad"]):
            request = request_of(*texts)
            request.priority = pb.PRIORITY_BULK
            with nullcontext() if len(texts) == 1 else pytest.raises(grpc.aio.AioRpcError):
                await send(live, request)
        await classify(live, "good")

    codes = ("OK", "INVALID_ARGUMENT")
    counted = [
        live.value("sentimill_requests_total", method=method, code=code)
        for method in ("ClassifyBulk", "Classify")
        for code in codes
    ]
    assert counted == [1, 1, 1, None]
    assert live.value("sentimill_request_seconds_count", method="ClassifyBulk") == 2
    assert live.value("sentimill_request_seconds_count", method="Classify") == 1
    assert live.value("sentimill_queue_seconds_count") == 1


async def test_an_unknown_method_is_unimplemented(bundle: Path) -> None:
    """Nothing but the contract is answered."""
    async with live_service(bundle) as live:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await send(live, b"", method="Explain")

    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_call_whose_every_text_fails_in_the_engine_is_unavailable(tmp_path: Path) -> None:
    """Another server may have a better engine, so callers are told to retry."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    async with live_service(made.path) as live:
        error = await refusal(live, request_of("poison", "", "bad poison"))

    assert (error.code(), reason_in(error)) == (grpc.StatusCode.UNAVAILABLE, "ENGINE_FAILED")


async def test_a_bomb_of_empty_items_is_refused_by_its_bytes(bundle: Path) -> None:
    """The items are counted before they are built; see test_message_parser."""
    async with live_service(bundle) as live:
        error = await refusal(live, b"\x0a\x00" * (1 << 20))

    assert (error.code(), reason_in(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "ITEM_COUNT")


def _input_errors() -> list[object]:
    # By type, since isinstance asks some objects of other libraries for their class.
    return [one for one in gc.get_objects() if issubclass(type(one), InputError)]


async def test_a_failed_call_lets_go_of_its_request(bundle: Path) -> None:
    """Without the garbage collector: refusals of large requests would pile up until it runs."""
    gc.collect()
    before = {id(one) for one in _input_errors()}  # such as that of a test that failed
    gc.disable()
    try:
        async with live_service(bundle, limits=Limits(max_items=1)) as live, connected(live) as to:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            method = to.unary_unary(f"/{SERVICE}/Classify")
            data = request_of("good", "bad").SerializeToString()
            for _ in range(3):
                with pytest.raises(grpc.aio.AioRpcError):
                    await method(data)
            kept = [one for one in _input_errors() if id(one) not in before]
    finally:
        gc.enable()

    assert kept == []


async def test_requests_past_the_bytes_that_may_wait_are_refused(bundle: Path) -> None:
    """Before they are parsed, and with the code of a full queue."""
    limits = Limits(max_waiting_bytes=100)
    async with live_service(bundle, limits=limits, gated=True) as live:
        queued = asyncio.create_task(classify(live, "good " * 15))
        await live.gate.entered()
        error = await refusal(live, request_of("bad " * 15))
        live.gate.open()
        await queued
        assert outcomes(await classify(live, "bad " * 15)) == ["negative"]

    assert (error.code(), reason_in(error)) == (grpc.StatusCode.UNAVAILABLE, "QUEUE_FULL")


async def test_a_call_without_a_deadline_gets_one(bundle: Path) -> None:
    """An engine that hangs holds no caller for ever, and no text stays counted."""
    limits = Limits(default_deadline_seconds=0.2)
    async with live_service(bundle, limits=limits, gated=True) as live:
        error = await refusal(live, request_of("good"))
        await until(lambda: (live.admission.texts, live.admission.tokens) == (0, 0))

    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "set a deadline" in str(error.details())


async def test_one_connection_cannot_shut_out_another(bundle: Path) -> None:
    """Without tokens a caller is a connection; one that holds its share is refused alone."""
    own = [("grpc.use_local_subchannel_pool", 1)]  # else like channels share a connection
    async with (
        live_service(bundle, limits=Limits(max_waiting_texts=8), gated=True) as live,
        grpc.aio.insecure_channel(live.address, options=own) as greedy,
    ):
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        method = greedy.unary_unary(f"/{SERVICE}/Classify")
        held = method(request_of("good", "good", "good", "good").SerializeToString())
        await live.gate.entered()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request_of("good").SerializeToString())
        other = asyncio.create_task(classify(live, "bad"))
        await until(lambda: live.admission.texts == 5)
        live.gate.open()
        assert outcomes(await other) == ["negative"]
        await held

    assert reason_in(caught.value) == "CALLER_SHARE_FULL"

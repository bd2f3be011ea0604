"""`ClassifyStream`, called over real sockets with raw messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from google.rpc import error_details_pb2

from live_server import Live, live_service, until
from raw_calls import connected, outcomes, reason_of, request_of
from sentimill.server.access.auth import TokenAuth, new_token
from sentimill.server.request_handler import Limits
from sentimill.server.sentiment_service import SERVICE
from sentimill.v1 import sentiment_pb2 as pb


def our_tasks() -> list[str]:
    """Return the names of the service's coroutines that run as tasks; gRPC has its own."""
    coroutines = [getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()]
    return [name for name in coroutines if name.startswith("SentimentService.")]


StreamCall = grpc.aio.StreamStreamCall[bytes, bytes]


@asynccontextmanager
async def streaming(
    live: Live, token: str = "", timeout: float | None = None
) -> AsyncIterator[StreamCall]:
    """Open a ClassifyStream."""
    async with connected(live) as channel:
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = channel.stream_stream(f"/{SERVICE}/ClassifyStream")
        metadata = (("authorization", f"Bearer {token}"),) if token else None
        call = method(timeout=timeout, metadata=metadata)
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
    assert live.value("sentimill_requests_total", method="ClassifyStream", code="CANCELLED") == 4


async def test_the_requests_of_a_stream_that_is_too_late_are_counted(bundle: Path) -> None:
    """Once each, as calls that are; the caller's own clock may be the first to cancel them."""
    async with live_service(bundle, gated=True) as live:
        async with streaming(live, timeout=3) as call:
            await write(call, 1, ["good"])
            await write(call, 2, ["bad"])
            await until(lambda: live.admission.texts == 2)

            assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await until(lambda: not our_tasks())

    counted = [
        live.value("sentimill_requests_total", method="ClassifyStream", code=code) or 0
        for code in ("DEADLINE_EXCEEDED", "CANCELLED")
    ]
    assert sum(counted) == 2


async def test_a_refused_request_of_a_stream_says_when_to_come_back(bundle: Path) -> None:
    """Its stream goes on, so no trailer can tell."""
    limits = Limits(max_waiting_texts=1)
    async with (
        live_service(bundle, limits=limits, gated=True) as live,
        streaming(live) as busy,
        streaming(live) as call,
    ):
        await write(busy, 1, ["good"])
        await live.gate.entered()
        await write(call, 2, ["bad"])
        refused = (await read(call)).error
        live.gate.open()

    info = error_details_pb2.RetryInfo()
    assert (refused.code, reason_of(refused)) == (
        grpc.StatusCode.UNAVAILABLE.value[0],
        "QUEUE_FULL",
    )
    assert any(detail.Unpack(info) for detail in refused.details)
    assert 100 <= info.retry_delay.ToMilliseconds() <= 30_000


async def test_a_stream_with_a_message_beyond_the_limit_ends(bundle: Path) -> None:
    """The call fails and leaves no tasks behind."""
    async with live_service(bundle, limits=Limits(max_request_bytes=1000)) as live:
        async with streaming(live) as call:
            await write(call, 1, ["good"])
            await read(call)
            await write(call, 2, ["x" * 2000])

            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until(lambda: not our_tasks())


async def test_an_idle_stream_ends_when_the_server_drains(bundle: Path) -> None:
    """It would hold the drain for as long as its caller likes; another instance will answer."""
    async with live_service(bundle) as live, streaming(live) as call:
        await write(call, 1, ["good"])
        assert outcomes((await read(call)).response) == ["positive"]
        live.service.drain()

        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in str(await call.details())
        await until(lambda: not our_tasks())

    refused = live.value("sentimill_refused_requests_total", reason="DRAINING")
    counted = live.value("sentimill_requests_total", method="ClassifyStream", code="UNAVAILABLE")
    assert refused == counted == 1


async def test_a_drain_answers_what_a_stream_has_under_way(bundle: Path) -> None:
    """Then it ends."""
    async with live_service(bundle, gated=True) as live, streaming(live) as call:
        await write(call, 1, ["good"])
        await live.gate.entered()
        live.service.drain()
        live.gate.open()

        assert outcomes((await read(call)).response) == ["positive"]
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_stream_that_was_all_answered_ends_well_in_a_drain(bundle: Path) -> None:
    """Its caller had sent all it would, and has no reason to try anything again."""
    async with live_service(bundle, gated=True) as live, streaming(live) as call:
        await write(call, 1, ["good"])
        await call.done_writing()
        await live.gate.entered()
        await until(lambda: not any("read" in name for name in our_tasks()))
        live.service.drain()
        live.gate.open()

        assert outcomes((await read(call)).response) == ["positive"]
        assert await call.code() is grpc.StatusCode.OK


async def test_a_stream_outlives_neither_its_token_nor_its_quota(
    bundle: Path, tmp_path: Path
) -> None:
    """A change of the file holds for the next message, which gets its error."""
    now, path = 100.0, tmp_path / "tokens"
    token, line = new_token("anna", None)
    path.write_text(line)
    callers = TokenAuth(path, lambda: now)
    async with live_service(bundle, auth=callers) as live, streaming(live, token) as call:
        found = []
        for number, text in enumerate([line, f"{line} 0.1", f"{line} 0.1", ""]):
            path.write_text(text)
            now += 1
            await write(call, number, ["good"] * 2)
            found.append(await read(call))

    assert [one.id for one in found] == [0, 1, 2, 3]
    assert [outcomes(one.response) for one in found[:2]] == [["positive"] * 2] * 2
    assert [reason_of(one.error) for one in found[2:]] == ["QUOTA_EXCEEDED", "TOKEN_UNKNOWN"]


async def test_bulk_requests_of_a_stream_are_counted_apart(bundle: Path) -> None:
    """Each by its own priority."""
    async with live_service(bundle) as live, streaming(live) as call:
        for priority in (pb.PRIORITY_BULK, pb.PRIORITY_INTERACTIVE, pb.PRIORITY_BULK):
            request = request_of("good")
            request.priority = priority
            await call.write(pb.ClassifyStreamRequest(request=request).SerializeToString())
            await read(call)

    for method, count in (("ClassifyStreamBulk", 2), ("ClassifyStream", 1)):
        assert live.value("sentimill_requests_total", method=method, code="OK") == count

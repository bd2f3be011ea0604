"""The typed clients, against a whole server over real sockets."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import grpc
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import sentimill.client.client as client_module
from live_server import WAIT_SECONDS, live_server, live_service
from sentimill import AsyncClient, Classifier, Client, Prediction, TextError
from sentimill.bundle.reader import open_bundle
from sentimill.errors import (
    DeadlineError,
    EngineError,
    InputError,
    QuotaError,
    SentimillError,
    UnavailableError,
    UsageError,
)
from sentimill.server.request_handler import Limits
from sentimill.server.settings import Serve
from sentimill.types import MAX_TEXT_BYTES
from sentimill.v1 import sentiment_pb2 as pb
from tiny_bundle import LABELS, graph, write_tiny_bundle

Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


@pytest.fixture(scope="module")
def address(bundle: Path) -> Iterator[str]:
    """Return the address of a whole server."""
    with live_server(Serve(bundle=bundle, port=0, metrics_port=0, threads=1)) as serving:
        yield serving.address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[Client]:
    """Return a client that is connected."""
    with Client(address) as made:
        yield made


def outcomes(found: list[Prediction | TextError | EngineError]) -> list[str]:
    """Return the label of each result, or the reason of its error."""
    return [one.label if isinstance(one, Prediction) else one.reason for one in found]


def test_a_prediction_is_what_the_classifier_gives(client: Client, bundle: Path) -> None:
    """A client sees no difference between a server and a bundle of its own."""
    texts = ["good", "good bad", "the " * 30]
    (single, *_) = local = Classifier.load(bundle).classify(texts)
    found = client.classify(texts)

    assert isinstance(single, Prediction)
    for got, expected in zip(found, local, strict=True):
        assert isinstance(got, Prediction)
        assert isinstance(expected, Prediction)
        assert got.probs == expected.probs
        assert got.score == pytest.approx(expected.score, abs=1e-7)
        assert (got.label, got.confidence) == (expected.label, expected.confidence)
        assert (got.abstained, got.truncated) == (expected.abstained, expected.truncated)
        assert got.tokens == expected.tokens


def test_bad_texts_are_errors_in_their_own_place(client: Client) -> None:
    """Lone surrogates and a text of many megabytes harm no neighbour."""
    found = client.classify(["good", "", "\ud800", "x" * (MAX_TEXT_BYTES + 1), "x" * 2**24, "bad"])

    assert outcomes(found) == [
        "positive",
        "EMPTY_TEXT",
        "INVALID_UNICODE",
        "TEXT_TOO_LARGE",
        "TEXT_TOO_LARGE",
        "negative",
    ]
    assert [type(one) for one in found[1:5]] == [TextError] * 4


def test_a_long_list_is_sent_in_several_requests(client: Client) -> None:
    """The caller need not know the server's limits."""
    texts = ["good", "bad", "the"] * 500

    assert outcomes(client.classify(texts)) == ["positive", "negative", "neutral"] * 500


def test_many_large_texts_are_sent_in_several_requests(client: Client) -> None:
    """Bytes are counted as well as texts."""
    found = client.classify(["good " * 200_000] * 12)

    assert outcomes(found) == ["positive"] * 12


def test_no_texts_give_no_results(client: Client) -> None:
    """An empty list needs no request."""
    assert client.classify([]) == []


def test_a_single_string_is_refused(client: Client) -> None:
    """Classifying the letters of a text is never meant."""
    with pytest.raises(InputError, match=re.escape("write classify([text])")):
        client.classify("good")


def test_the_model_is_told(client: Client, bundle: Path) -> None:
    """Name, digest, labels and limits as typed fields."""
    found = client.model()

    assert (found.name, found.version, found.labels) == ("tiny", "1", LABELS)
    assert found.digest == open_bundle(bundle).digest
    assert (found.max_tokens, found.precision, found.provider) == (16, "fp32", "cpu")
    assert found.threshold == pytest.approx(0.6)


def test_threads_share_a_client(client: Client) -> None:
    """Each thread gets its own answers."""
    with ThreadPoolExecutor(8) as threads:
        words = ["good", "bad", "the", "good bad bad"] * 10
        found = list(threads.map(lambda word: outcomes(client.classify([word])), words))

    assert found == [["positive"], ["negative"], ["neutral"], ["negative"]] * 10


def test_no_server_is_unavailable() -> None:
    """The error is of our tree, and tells the address and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(UnavailableError) as caught:
        client.classify(["good"])

    assert caught.value.reason == "UNAVAILABLE"
    assert str(port) in str(caught.value)
    assert "or start one (`sentimill serve`)" in str(caught.value)


async def test_the_async_client_does_the_same(address: str) -> None:
    """Predictions, errors and the model come as from the other client."""
    async with AsyncClient(address) as client:
        found, model = await asyncio.gather(
            client.classify(["good", "", "\ud800", "x" * 2**24, "bad"] * 100), client.model()
        )

    each = ["positive", "EMPTY_TEXT", "INVALID_UNICODE", "TEXT_TOO_LARGE", "negative"]
    assert outcomes(found) == each * 100
    assert model.name == "tiny"


async def test_many_calls_share_an_async_client(address: str) -> None:
    """Concurrent calls get their own answers."""
    words = ["good", "bad", "the"] * 20
    async with AsyncClient(address) as client:
        found = await asyncio.gather(*[client.classify([word]) for word in words])

    labels = ["positive", "negative", "neutral"] * 20
    assert [outcomes(each) for each in found] == [[label] for label in labels]


async def test_a_full_server_is_unavailable(bundle: Path) -> None:
    """The server's own reason reaches the caller."""
    async with (
        live_service(bundle, limits=Limits(max_waiting_texts=1), gated=True) as live,
        AsyncClient(live.address) as client,
    ):
        waiting = asyncio.create_task(client.classify(["good"]))
        await live.gate.entered()
        with pytest.raises(UnavailableError, match="would exceed the limit of 1") as caught:
            await client.classify(["bad"])
        live.gate.open()
        await waiting

    assert caught.value.reason == "QUEUE_FULL"


async def test_a_deadline_is_an_error_of_its_own(bundle: Path) -> None:
    """The timeout of the client is the deadline of each request."""
    async with (
        live_service(bundle, gated=True) as live,
        AsyncClient(live.address, timeout_seconds=0.1) as client,
    ):
        with pytest.raises(DeadlineError):
            await client.classify(["good"])


async def test_a_failing_engine_is_an_error_of_its_text(tmp_path: Path) -> None:
    """It is told apart from a bad text: trying again may help."""
    made = write_tiny_bundle(tmp_path / "tiny", model=graph(fail_on="poison"))
    async with live_service(made.path) as live, AsyncClient(live.address) as client:
        good, failed = await client.classify(["good", "poison"])

    assert isinstance(good, Prediction)
    assert isinstance(failed, EngineError)
    assert failed.reason == "ENGINE_FAILED"


@asynccontextmanager
async def stub(answer: Callable[[bytes, Context], Awaitable[bytes]]) -> AsyncIterator[str]:
    """Serve *answer* as Classify, and give the address: a server or a proxy that misbehaves."""
    server = grpc.aio.server()
    methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        "Classify": grpc.unary_unary_rpc_method_handler(answer)
    }
    handler = grpc.method_handlers_generic_handler("sentimill.v1.SentimentService", methods)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, QuotaError),
        (grpc.StatusCode.INVALID_ARGUMENT, InputError),
        (grpc.StatusCode.PERMISSION_DENIED, SentimillError),
    ],
)
async def test_codes_of_proxies_become_our_errors_and_are_not_tried_again(
    code: grpc.StatusCode, kind: type[SentimillError]
) -> None:
    """A status without details of ours still has a type and a reason."""
    calls: list[bytes] = []

    async def answer(data: bytes, context: Context) -> bytes:
        calls.append(data)
        await context.abort(code, "said the proxy")

    async with stub(answer) as address, AsyncClient(address) as client:
        with pytest.raises(SentimillError, match="said the proxy") as caught:
            await client.classify(["good"])

    assert (type(caught.value), caught.value.reason) == (kind, code.name)
    assert len(calls) == 1


async def test_what_was_not_begun_is_tried_again() -> None:
    """UNAVAILABLE means that nothing was computed; the server says how long to pause."""
    calls: list[bytes] = []

    async def answer(data: bytes, context: Context) -> bytes:
        calls.append(data)
        if len(calls) < 3:
            pushback = (("grpc-retry-pushback-ms", "1"),)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "full", pushback)
        prediction = pb.Prediction(label="positive")
        results = [pb.ClassifyResult(prediction=prediction)]
        return pb.ClassifyResponse(results=results).SerializeToString()

    async with stub(answer) as address:
        async with AsyncClient(address) as client:
            found = await client.classify(["good"])
        tried, calls[:] = len(calls), []
        with Client(address) as blocking:
            again = await asyncio.to_thread(blocking.classify, ["good"])

    assert outcomes(found) == outcomes(again) == ["positive"]
    assert (tried, len(calls)) == (3, 3)
    assert set(calls) == {calls[0]}


async def test_a_server_that_stays_full_is_given_up() -> None:
    """After four tries in all."""
    calls: list[bytes] = []

    async def answer(data: bytes, context: Context) -> bytes:
        calls.append(data)
        pushback = (("grpc-retry-pushback-ms", "1"),)
        await context.abort(grpc.StatusCode.UNAVAILABLE, "full", pushback)

    async with stub(answer) as address, AsyncClient(address) as client:
        with pytest.raises(UnavailableError):
            await client.classify(["good"])

    assert len(calls) == 4


async def test_a_long_list_has_a_few_requests_under_way_at_once() -> None:
    """So that one caller neither waits for each answer nor floods the server."""
    gate, priorities, now, most = asyncio.Event(), set(), 0, 0

    async def answer(data: bytes, context: Context) -> bytes:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == 3:
            gate.set()
        await asyncio.wait_for(gate.wait(), WAIT_SECONDS)
        request = pb.ClassifyRequest.FromString(data)
        priorities.add(request.priority)
        result = pb.ClassifyResult(prediction=pb.Prediction(label="positive"))
        now -= 1
        return pb.ClassifyResponse(results=[result] * len(request.items)).SerializeToString()

    texts = ["good"] * 256 * 10
    async with stub(answer) as address:
        async with AsyncClient(address, concurrency=3) as client:
            assert outcomes(await client.classify(texts)) == ["positive"] * len(texts)
        assert most == 3
        gate.clear()
        with Client(address, concurrency=3) as blocking:
            found = await asyncio.to_thread(blocking.classify, texts, bulk=True)

    assert (outcomes(found), most) == (["positive"] * len(texts), 3)
    assert priorities == {pb.PRIORITY_INTERACTIVE, pb.PRIORITY_BULK}


async def test_a_list_is_split_by_the_limits_that_the_server_told(bundle: Path) -> None:
    """Texts and bytes that a server would refuse in one request go in several."""
    texts = ["good", "bad"] * 40 + ["good " * 100] * 3
    limits = Limits(max_items=50, max_waiting_texts=60, max_request_bytes=1200)
    async with live_service(bundle, limits=limits) as live:
        async with AsyncClient(live.address, concurrency=1) as client:
            with pytest.raises(
                InputError, match=r"the limit is 1200.*message larger than max"
            ) as e:
                await client.classify(texts)
            told = (await client.model()).limits
            found = await client.classify(texts, bulk=True)
        with Client(live.address, concurrency=1) as blocking:
            assert (await asyncio.to_thread(blocking.model)).limits == told
            again = await asyncio.to_thread(blocking.classify, texts)

    assert e.value.reason == "MESSAGE_TOO_LARGE"
    assert (told.max_items, told.max_waiting_texts, told.max_request_bytes) == (50, 60, 1200)
    assert told.max_text_bytes == MAX_TEXT_BYTES
    assert outcomes(found) == outcomes(again) == ["positive", "negative"] * 40 + ["positive"] * 3


async def test_channels_are_connections_of_their_own() -> None:
    """Requests take turns over them."""
    peers: list[str] = []

    async def answer(data: bytes, context: Context) -> bytes:
        peers.append(context.peer())
        result = pb.ClassifyResult(prediction=pb.Prediction(label="positive"))
        return pb.ClassifyResponse(results=[result]).SerializeToString()

    async with stub(answer) as address, AsyncClient(address, channels=3) as client:
        for _ in range(6):
            await client.classify(["good"])

    assert len(set(peers)) == 3
    assert peers[:3] == peers[3:]


def test_settings_with_which_no_call_is_made_are_refused() -> None:
    """At once, and by name."""
    with pytest.raises(InputError, match="timeout_seconds 0"):
        Client("127.0.0.1:1", timeout_seconds=0)
    with pytest.raises(InputError, match="channels 0"):
        AsyncClient("127.0.0.1:1", channels=0)
    with pytest.raises(InputError, match="concurrency 0"):
        Client("127.0.0.1:1", concurrency=0)


@pytest.mark.parametrize(
    "shown",
    [
        client_module,
        Client.classify,
        Client.model,
        AsyncClient,
        AsyncClient.classify,
        AsyncClient.model,
    ],
    ids=lambda shown: shown.__name__,
)
async def test_an_example_gives_what_it_says(shown: object, address: str) -> None:
    """What the documentation shows runs as it stands, but for the address."""
    paragraphs = str(inspect.getdoc(shown)).split("\n\n")
    (example,) = [one for one in paragraphs if re.match(r"(async )?with \w+\(", one)]
    head, call = example.replace("127.0.0.1:50051", address).splitlines()
    says = call.partition("  # ")[2]
    names: dict[str, Callable[[], Awaitable[object]]] = {}

    code = f"async def run():\n    {head}\n        return {call.strip()}"
    exec(code, {"Client": Client, "AsyncClient": AsyncClient}, names)

    assert await names["run"]() == ast.literal_eval(says)


async def test_a_response_above_the_clients_limit_is_not_a_used_up_quota() -> None:
    """The error says that the response is too large, and the call is sent once."""
    calls: list[bytes] = []

    async def answer(data: bytes, context: Context) -> bytes:
        calls.append(data)
        return b"\0" * (17 << 20)

    async with stub(answer) as address, AsyncClient(address) as client:
        with pytest.raises(InputError, match="the response is larger") as caught:
            await client.classify(["good"])

    assert (caught.value.reason, len(calls)) == ("MESSAGE_TOO_LARGE", 1)


def test_an_async_client_may_be_made_before_the_loop_and_used_in_several(address: str) -> None:
    """A channel belongs to an event loop, so each loop gets channels of its own."""
    client = AsyncClient(address)

    async def ask() -> list[str]:
        return outcomes(await client.classify(["good"]))

    assert [asyncio.run(ask()) for _ in range(2)] == [["positive"]] * 2


async def test_a_closed_client_says_so(address: str) -> None:
    """Both clients name the mistake."""
    client, waiting = Client(address), AsyncClient(address)
    client.close()
    await waiting.close()

    with pytest.raises(UsageError, match="the client is closed"):
        client.classify(["good"])
    with pytest.raises(UsageError, match="the client is closed"):
        await waiting.classify(["good"])


COLUMN = ["good", None, float("nan"), 7, "", "bad"]


@pytest.mark.parametrize(
    "texts",
    [
        COLUMN,
        tuple(COLUMN),
        iter(COLUMN),
        np.array(COLUMN, dtype=object),
        pd.Series(COLUMN, dtype=object, index=range(9, 3, -1)),
        pd.Series(["good", pd.NA, None, 7, "", "bad"], dtype=object),
    ],
    ids=["list", "tuple", "iterator", "numpy", "pandas", "pandas NA"],
)
def test_a_client_and_a_classifier_take_columns_with_gaps(
    client: Client, bundle: Path, texts: Iterable[object]
) -> None:
    """What is no text gets its error at its position, and its neighbours get their answers."""
    items = list(texts)
    expected = ["positive", "MISSING_TEXT", "MISSING_TEXT", "NOT_TEXT", "EMPTY_TEXT", "negative"]
    found = client.classify(items if isinstance(texts, Iterator) else texts)
    local = Classifier.load(bundle).classify(items if isinstance(texts, Iterator) else texts)

    assert outcomes(found) == outcomes([*local]) == expected
    for results in (found, [*local]):
        places = [one.position for one in results if isinstance(one, TextError)]
        assert places == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "texts",
    [
        pa.array(["good", None, "bad"]),
        pa.chunked_array([["good"], [None, "bad"]]),
        pa.array(["good", None, "bad"]).dictionary_encode(),
        pd.Series(["good", None, "bad"], dtype="string"),
        pl.Series(["good", None, "bad"]),
    ],
    ids=["arrow", "chunked", "dictionary", "pandas string", "polars"],
)
def test_columns_of_text_are_lists_of_texts(client: Client, texts: Iterable[object]) -> None:
    """A column of any library gives one result a row."""
    assert outcomes(client.classify(texts)) == ["positive", "MISSING_TEXT", "negative"]


@pytest.mark.parametrize(
    "texts",
    [{"text": ["good"]}, pd.DataFrame({"text": ["good"]}), pa.table({"text": ["good"]}), b"x"],
    ids=["dict", "pandas", "arrow", "bytes"],
)
def test_what_is_no_column_is_refused(client: Client, texts: Iterable[object]) -> None:
    """A frame would give its column names, which nobody means."""
    with pytest.raises(InputError) as caught:
        client.classify(texts)

    assert caught.value.reason == "NOT_A_LIST"


def test_a_prediction_knows_its_labels_and_its_model(client: Client, bundle: Path) -> None:
    """Probabilities are read by name, and the digest says which model answered."""
    (found,) = client.classify(["good bad"])
    (local,) = Classifier.load(bundle).classify(["good bad"])

    assert isinstance(found, Prediction)
    assert isinstance(local, Prediction)
    assert found.probs["positive"] == found.probs[2] == local.probs["positive"]
    assert tuple(dict(found.probs)) == LABELS
    assert found.model_digest == local.model_digest == open_bundle(bundle).digest
    assert found.abstain_reason == local.abstain_reason == "LOW_CONFIDENCE"


def test_a_list_shows_its_progress_when_asked(
    client: Client,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A terminal gets the count of texts; a pipe gets nothing."""
    texts = ["good"] * 300
    client.classify(texts, progress=True)
    assert capsys.readouterr() == ("", "")

    monkeypatch.setenv("FORCE_COLOR", "1")
    client.classify(texts, progress=True)
    assert "300/300" in capsys.readouterr().err
    Classifier.load(bundle).classify(texts, progress=True)
    assert "300/300" in capsys.readouterr().err

"""A server with an index: who gets neighbours, whose they are, and how an index is replaced."""

from __future__ import annotations

import asyncio
import csv
import json
import shutil
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from cli_in_process import Sentimill
from live_server import live_server
from raw_calls import request_of
from reload_server import reloading
from sentimill import AsyncClient, Classifier, Client, Security
from sentimill.batching.admission import Admission
from sentimill.errors import (
    AuthError,
    BundleError,
    InputError,
    SentimillError,
    UnavailableError,
    UsageError,
)
from sentimill.observability.metrics import Metrics
from sentimill.scoring.scorers import LocalScorer
from sentimill.server.access.auth import new_token
from sentimill.server.lifecycle import start
from sentimill.server.model_loader import ModelLoader
from sentimill.server.sentiment_service import SERVICE
from sentimill.server.settings import Serve
from sentimill.types import Prediction, Result
from tiny_index import REVIEWS, write_index, write_state_bundle

TEXTS = [row[1] for row in REVIEWS]
ALICE = [(f"alice-{name}", text, label) for name, text, label in REVIEWS]
BOB = [(f"bob-{name}", text, label) for name, text, label in REVIEWS]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle whose graph has states."""
    return write_state_bundle(tmp_path_factory.mktemp("model") / "bundle")


def ids_of(results: Sequence[Result]) -> list[list[str]]:
    """Return the ids of the neighbours of each answer."""
    assert all(isinstance(one, Prediction) for one in results)
    return [[n.id for n in one.neighbours] for one in results if isinstance(one, Prediction)]


def serve(model: Path, index: Path | None, tokens: Path | None = None) -> Serve:
    """Return a server on free ports."""
    return Serve(bundle=model, port=0, metrics_port=0, threads=1, index=index, tokens=tokens)


@pytest.fixture
def tenants(tmp_path: Path, model: Path) -> dict[str, str]:
    """Write indexes of alice and bob, and tokens of both and of carol; return the tokens."""
    write_index(tmp_path / "indexes/alice", model, ALICE)
    write_index(tmp_path / "indexes/bob", model, BOB)
    made = {name: new_token(name, None) for name in ("alice", "bob", "carol")}
    (tmp_path / "tokens").write_text("".join(f"{line}\n" for _, line in made.values()))
    return {name: token for name, (token, _) in made.items()}


def test_a_server_shows_the_neighbours_that_a_classifier_does(model: Path, tmp_path: Path) -> None:
    """As many as were asked for, beside errors and sentences, and without their texts."""
    folder = write_index(tmp_path / "mine.index", model)
    texts = [*TEXTS, "", "It is good. It is bad!"]
    local = Classifier.load(model, index=folder, threads=1)
    expected = local.classify(texts, neighbours=3, explain=True)

    with live_server(serve(model, folder)) as serving, Client(serving.address) as client:
        found = client.classify(texts, neighbours=3, explain=True)
        plain = client.classify(texts)

    assert isinstance(found[len(TEXTS)], InputError)
    for ours, theirs, asked_for_none in zip(expected, found, plain, strict=True):
        if isinstance(ours, SentimillError):
            continue
        assert isinstance(theirs, Prediction)
        assert isinstance(asked_for_none, Prediction)
        assert [(n.id, n.label) for n in theirs.neighbours] == [
            (n.id, n.label) for n in ours.neighbours
        ]
        assert len(theirs.neighbours) == 3
        assert [n.similarity for n in theirs.neighbours] == pytest.approx(
            [n.similarity for n in ours.neighbours], abs=1e-6
        )
        assert not any(n.text for n in theirs.neighbours)
        assert len(theirs.sentences) == len(ours.sentences)
        assert asked_for_none.neighbours == ()
        assert asked_for_none.probs == theirs.probs


async def test_a_caller_never_sees_the_index_of_another(
    model: Path, tmp_path: Path, tenants: dict[str, str]
) -> None:
    """Also where the texts of both are in one batch."""
    async with AsyncExitStack() as stack:
        config = serve(model, tmp_path / "indexes", tmp_path / "tokens")
        serving = await start(config, stack)
        clients = {
            name: await stack.enter_async_context(
                AsyncClient(serving.address, security=Security(tls=False, token=token))
            )
            for name, token in tenants.items()
        }
        turns = [name for _ in range(10) for name in ("alice", "bob")]
        answers = await asyncio.gather(
            *(clients[name].classify(TEXTS, neighbours=32) for name in turns)
        )

        for name, results in zip(turns, answers, strict=True):
            for found in ids_of(results):
                assert sorted(found) == [f"{name}-{row[0]}" for row in REVIEWS]
        with pytest.raises(InputError, match=r"no index for carol.*serve --index") as refused:
            await clients["carol"].classify(TEXTS, neighbours=1)
        assert refused.value.reason == "NO_INDEX"
        assert ids_of(await clients["carol"].classify(TEXTS)) == [[]] * len(TEXTS)
        async with AsyncClient(serving.address) as stranger:
            with pytest.raises(AuthError):
                await stranger.classify(TEXTS, neighbours=1)


async def test_a_reload_reads_the_indexes_again(
    model: Path, tmp_path: Path, tenants: dict[str, str]
) -> None:
    """A new caller gets one, a caller whose folder is gone has none, and rows are counted."""
    folder = tmp_path / "indexes"
    async with reloading(model, index=folder, tokens=tmp_path / "tokens") as made:

        async def nearest(name: str) -> list[str]:
            security = Security(tls=False, token=tenants[name])
            async with AsyncClient(made.address, security=security) as client:
                (ids,) = ids_of(await client.classify(["good battery"], neighbours=1))
                return ids

        assert await made.metric("sentimill_index_rows") == 14
        write_index(folder / "alice", model, [("new", "good battery", "negative")])
        write_index(folder / "carol", model, [("first", "fine", "neutral")])
        shutil.rmtree(folder / "bob")
        assert await nearest("alice") == ["alice-a"]  # a folder alone changes nothing
        assert await nearest("bob") == ["bob-a"]

        assert await made.reload() == (1, 0)

        assert await nearest("alice") == ["new"]
        assert await nearest("carol") == ["first"]
        with pytest.raises(InputError, match="no index for bob"):
            await nearest("bob")
        assert await made.metric("sentimill_index_rows") == 2
        assert await made.metric("sentimill_index_lookup_seconds_count") == 4


async def test_a_bad_index_leaves_the_server_as_it_is(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The old index answers on, and so does the old bundle where the new one has no index."""
    folder = write_index(tmp_path / "mine.index", model)
    async with reloading(model, index=folder) as made, AsyncClient(made.address) as client:
        (folder / "rows.json").write_bytes(b"[]")
        assert await made.reload() == (0, 1)
        assert "rows.json is not what the manifest says" in caplog.text
        write_index(folder, model)
        made.lead_to(write_state_bundle(tmp_path / "other", version="2"))
        assert await made.reload() == (0, 2)
        assert "the index" in caplog.text
        assert "name that bundle with --bundle" in caplog.text

        assert ids_of(await client.classify(["good battery"], neighbours=1)) == [["a"]]


@pytest.mark.parametrize("count", [33, 4000])
def test_an_answer_shows_32_neighbours_at_most(model: Path, tmp_path: Path, count: int) -> None:
    """More are refused, by the client, the classifier and the server alike."""
    folder = write_index(tmp_path / "mine.index", model)
    classifier = Classifier.load(model, index=folder, threads=1)

    with (
        live_server(serve(model, folder)) as serving,
        Client(serving.address) as client,
        grpc.insecure_channel(serving.address) as channel,
    ):
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        call = channel.unary_unary(f"/{SERVICE}/Classify")
        message = request_of("good")
        message.neighbours = count
        for attempt in (
            lambda: client.classify(["good"], neighbours=count),
            lambda: classifier.classify(["good"], neighbours=count),
            lambda: call(message.SerializeToString()),
        ):
            with pytest.raises((InputError, grpc.RpcError), match="0 to 32 neighbours"):
                attempt()


async def test_a_restarted_engine_keeps_the_indexes(model: Path, tmp_path: Path) -> None:
    """The folder may be damaged by then, or belong to a bundle that is not loaded yet."""
    folder = write_index(tmp_path / "mine.index", model)
    metrics = Metrics()
    admission = Admission(max_texts=1, max_tokens=1, metrics=metrics)
    loader = ModelLoader(serve(model, folder), admission, metrics)
    first = await loader.load()
    shutil.rmtree(folder)

    second = await loader.load(model, first.indexes)

    assert second.indexes is first.indexes
    await first.close()
    await second.close()


async def test_a_restarted_engine_has_no_index_of_another_bundle(
    model: Path, tmp_path: Path
) -> None:
    """Where the folder has another bundle by then, its states mean something else."""
    bundle = tmp_path / "bundle"
    shutil.copytree(model, bundle)
    folder = write_index(tmp_path / "mine.index", bundle)
    metrics = Metrics()
    admission = Admission(max_texts=1, max_tokens=1, metrics=metrics)
    loader = ModelLoader(serve(bundle, folder), admission, metrics)
    first = await loader.load()
    shutil.rmtree(bundle)
    write_state_bundle(bundle, version="2")

    with pytest.raises(BundleError) as refused:
        await loader.load(bundle, first.indexes)
    write_index(folder, bundle)
    second = await loader.load(bundle, first.indexes)

    assert refused.value.reason == "INDEX_OF_ANOTHER_BUNDLE"
    assert second.indexes["anybody"].bundle == second.classifier.bundle.digest
    await first.close()
    await second.close()


async def test_a_lookup_in_a_closed_model_may_be_tried_again(model: Path, tmp_path: Path) -> None:
    """The watchdog closes a model whose engine fails while other calls look up their answers."""
    folder = write_index(tmp_path / "mine.index", model)
    metrics = Metrics()
    admission = Admission(max_texts=10, max_tokens=100, metrics=metrics)
    loaded = await ModelLoader(serve(model, folder), admission, metrics).load()
    row = loaded.classifier.compute(["good battery"])[1][0]
    await loaded.close()

    with pytest.raises(UnavailableError) as refused:
        await loaded.nearest("anybody", [row], 3)

    assert refused.value.reason == "ENGINE_FAILED"


async def test_a_server_without_an_index_says_so(model: Path) -> None:
    """A request without neighbours gets its answers."""
    async with AsyncExitStack() as stack:
        serving = await start(serve(model, None), stack)
        async with AsyncClient(serving.address) as client:
            with pytest.raises(InputError, match="no index for anybody") as refused:
                await client.classify(["good"], neighbours=1)
            assert ids_of(await client.classify(["good"])) == [[]]

    assert refused.value.reason == "NO_INDEX"


async def test_an_index_must_fit_the_tokens(
    model: Path, tmp_path: Path, tenants: dict[str, str]
) -> None:
    """One index for all callers would show each of them the reviews of the others."""
    indexes, tokens = tmp_path / "indexes", tmp_path / "tokens"
    other = write_state_bundle(tmp_path / "other", version="2")
    for config in (
        serve(model, indexes / "alice", tokens),
        serve(model, indexes),
        serve(model, tmp_path / "nowhere", tokens),
        serve(model, tmp_path / "nowhere"),
    ):
        async with AsyncExitStack() as stack:
            with pytest.raises(UsageError, match="an index for each caller") as refused:
                await start(config, stack)
        assert refused.value.reason == "BAD_INDEX"
    async with AsyncExitStack() as stack:
        with pytest.raises(BundleError) as unfit:
            await start(serve(other, indexes, tokens), stack)
    assert unfit.value.reason == "INDEX_OF_ANOTHER_BUNDLE"


def test_the_command_asks_a_server_for_neighbours(
    sentimill: Sentimill, model: Path, tmp_path: Path
) -> None:
    """And says what is missing where there is no index at all."""
    folder = write_index(tmp_path / "mine.index", model)
    with live_server(serve(model, folder)) as serving:
        options = ("--server", serving.address, "--neighbours", "2")
        found = sentimill("classify", "good battery", *options)
    missing = sentimill("classify", "good", "--bundle", model, "--neighbours", "2")

    first, second = json.loads(found.out)["neighbours"]
    assert (first["id"], first["label"]) == ("a", "positive")
    assert first["similarity"] >= second["similarity"]
    assert "--index" in missing.error


def test_a_table_gets_a_column_of_the_nearest_ids(
    sentimill: Sentimill, model: Path, tmp_path: Path
) -> None:
    """From a bundle and from a server alike, beside the sentences; a row without text has none."""
    folder = write_index(tmp_path / "mine.index", model)
    source = tmp_path / "in.csv"
    source.write_text('text\ngood battery\n""\nIt is good. It is bad!\n')
    options = ("--explain-column", "--neighbours", "2")
    local = ("--bundle", model, "--index", folder)
    sentimill("score", source, tmp_path / "out.csv", *options, *local)
    with live_server(serve(model, folder)) as serving:
        sentimill("score", source, tmp_path / "served.csv", *options, "--server", serving.address)
    sentimill("score", source, tmp_path / "five.csv", *local)
    missing = sentimill("score", source, tmp_path / "x.csv", "--bundle", model, *options)

    def rows(name: str) -> list[dict[str, str]]:
        with (tmp_path / name).open(newline="") as file:
            return list(csv.DictReader(file))

    first, blank, mixed = rows("out.csv")
    assert json.loads(first["sentiment_neighbours"])[0] == "a"
    assert len(json.loads(first["sentiment_neighbours"])) == 2
    assert blank["sentiment_neighbours"] == ""
    assert len(json.loads(mixed["sentiment_sentences"])) == 2
    assert (tmp_path / "served.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
    assert len(json.loads(rows("five.csv")[0]["sentiment_neighbours"])) == 5
    assert "--index" in missing.error


def test_a_job_does_not_go_on_with_another_index(model: Path, tmp_path: Path) -> None:
    """Its rows would be of two indexes."""
    names = [
        LocalScorer.load(model, threads=1, index=write_index(tmp_path / "x", model, rows)).model()
        for rows in (ALICE, ALICE, BOB)
    ]

    assert names[0] == names[1]
    assert names[1].engine != names[2].engine

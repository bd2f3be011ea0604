"""The benchmarks of serving: what they compare with, and that they run."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.engine.engine_rate import Case, exact_texts, speedups
from benchmarks.serving import tables as serving_table
from benchmarks.serving.cancelled_calls import made_up
from benchmarks.serving.latency import recovered_after
from benchmarks.serving.open_loop import Call, quantile
from benchmarks.serving.other_servers import PEERS, ask, request
from benchmarks.serving.served_rate import Turns, in_order
from repository import ROOT
from sentimill import Classifier
from sentimill.engine.base import Engine, EngineInfo
from tiny_index import write_state_bundle


def run(name: str, bundle: Path, out: Path, **options: object) -> dict[str, Any]:
    """Run a benchmark on *bundle* and made-up texts, and return what it wrote."""
    options = {"bundle": bundle, "data": out.parent, "out": out, "threads": 1} | options
    arguments = [f"--{key.replace('_', '-')}" for key in options]
    pairs = zip(arguments, options.values(), strict=True)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            f"benchmarks.{name}",
            *(str(part) for pair in pairs for part in pair),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(out.read_text())
    assert json.loads(done.stdout) == found
    return found


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([10, 10, 10], 30, 1.0),
        ([10, 2, 10], 20, 22 / 30),  # 10 and 2 pad to 20, then 10 alone
        ([50, 1], 20, 1.0),  # longer than the budget: alone
        ([2, 10, 2, 10], 40, 24 / 40),
    ],
)
def test_arrival_order_fills_a_batch_until_the_next_text_does_not_fit(
    lengths: list[int], budget: int, expected: float
) -> None:
    """It is what a queue without a choice does, and the last batch counts too."""
    assert in_order(lengths, lengths, budget) == pytest.approx(expected)


@pytest.mark.slow
def test_the_benchmark_runs_on_a_tiny_bundle(bundle: Path, tmp_path: Path) -> None:
    """Two turns of some seconds: figures for both loads, from a server that is gone afterwards."""
    found = run(
        "serving.served_rate", bundle, tmp_path / "out.json",
        texts=128, lead=1, seconds=2, rounds=2, offline_tokens=512,
    )  # fmt: skip

    loads = [(load["texts_a_request"], load["callers"]) for load in found["loads"]]
    assert loads == [(64, 8), (1, 128)]
    for load in found["loads"]:
        assert 0 < load["served_by_offline"] < 1
        assert len(load["served_by_offline_each"]) == 2
        assert 0 < load["useful_share"] <= 1


@pytest.mark.slow
def test_the_neighbours_benchmark_runs_on_a_tiny_bundle(tmp_path: Path) -> None:
    """A turn of each arm, and lookups are counted."""
    bundle = write_state_bundle(tmp_path / "bundle")
    found = run(
        "evidence.served_neighbours", bundle, tmp_path / "out.json", rows=20, rounds=1, seconds=1.5
    )

    for load in found["loads"]:
        assert all(len(rates) == 1 for rates in load["texts_per_second"].values())
        assert load["asked_by_no_index"]["median"] > 0
        assert load["lookup_seconds_a_request_so_far"] > 0


def test_a_served_turn_is_compared_with_the_offline_turns_around_it() -> None:
    """So that a machine which slows down steadily does not count against either."""
    turns = Turns(offline=[10, 6, 2], served=[4, 4], useful_share=[1, 1])

    assert turns.ratios() == [0.5, 1]


@pytest.mark.slow
def test_the_engine_benchmark_runs_on_a_tiny_bundle(bundle: Path, tmp_path: Path) -> None:
    """Each engine that the bundle allows at each budget, on the same threads and batches."""
    found = run(
        "engine.engine_rate",
        bundle,
        tmp_path / "out.json",
        texts=24,
        rounds=2,
        threads=2,
        checked=9,
    )

    cases = [tuple(row["case"].values()) for row in found["rows"]]
    for budget in (512, 1024, 4096):
        assert ("plain", "fp32", 2, budget) in cases
        assert ("onnx", "fp32", 2, budget) in cases
    assert all(row["speedup"] == 1 for row in found["rows"] if row["case"]["engine"] == "plain")
    assert {row["checked"] for row in found["rows"]} == {9}
    assert "to one plain fp32 session" in serving_table._engine(found)


def test_an_engine_is_compared_with_plain_fp32_on_the_same_batches() -> None:
    """Round by round, at its own budget, and with nothing where plain fp32 is missing."""
    plain, ours = Case("plain", "fp32", 2, 512), Case("onnx", "int8", 2, 512)
    other, alone = Case("plain", "fp32", 2, 4096), Case("onnx", "int8", 2, 1024)

    found = speedups({plain: [2, 4, 6], ours: [1, 1, 1], other: [9, 9, 9], alone: [1, 1, 1]})

    assert found == {plain: 1, ours: 4, other: 1, alone: None}


class Wavering(Engine):
    """An engine whose last bit hangs on the session that a call under load has."""

    info = EngineInfo(engine="x", provider="cpu", precision="fp32", threads=2, calls=2)

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], *, other_calls: int = 0
    ) -> NDArray[np.float32]:
        """Give texts of five tokens other logits during another call."""
        odd = mask.sum(axis=1, keepdims=True) == 5
        return np.where(odd & (other_calls > 0), 1, 2).repeat(3, axis=1).astype(np.float32)


def test_bits_are_checked_in_the_session_that_runs_under_load(bundle: Path) -> None:
    """A difference between the two sessions is one between two answers to the same text."""
    classifier = Classifier.load(bundle, engine="onnx", threads=2)
    rows = [np.ones(tokens, dtype=np.int64) for tokens in range(1, 13)]
    assert exact_texts(classifier, rows) == 12

    classifier.engine = Wavering()

    assert exact_texts(classifier, rows) == 11


def engines(*rows: tuple[str, str, int, float, float | None]) -> dict[str, Any]:
    """Return what the engine benchmark found: engine, precision, budget, rate, times of plain."""
    found = [
        {
            "case": {"engine": engine, "precision": precision, "batch_tokens": budget},
            "texts_per_second": rate,
            "speedup": speedup,
            "exact": 9,
            "checked": 9,
        }
        for engine, precision, budget, rate, speedup in rows
    ]
    return {"mean_tokens": 170.2, "rows": found, "tokenize_by_engine": 0.02}


def test_the_table_compares_engines_at_the_same_budget() -> None:
    """Where plain fp32 did not run at a budget there is nothing to compare with."""
    rows = [("plain", "fp32", 512, 20.0, 1.0), ("plain", "fp32", 4096, 10.0, 1.0)]
    ours = [
        ("onnx", "int8", 4096, 18.0, 1.8),
        ("onnx", "int8", 512, 30.0, 1.5),
        ("onnx", "int8", 256, 31.0, None),
    ]

    said = serving_table._engine(engines(*rows, *ours))

    assert "answers 20 at 512, 10 at 4,096 reviews of 170 tokens a second" in said
    assert "onnx int8 31 a second at 256 and 1.50 at 512 and 1.80 at 4,096)" in said
    assert "Batching changed no bit of an answer" in said
    assert "Tokenising on one thread takes 2.0% of the time of the fastest engine" in said


def test_the_table_tells_rates_where_no_fp32_was_measured() -> None:
    """The reference bundle alone has none."""
    said = serving_table._engine(engines(("onnx", "int8", 512, 33.1, None)))

    assert "in reviews of 170 tokens a second (onnx int8 33 at 512)" in said
    assert "onnx int8 33 at 512" in said


def test_the_table_tells_of_the_fastest_run_of_each_peer() -> None:
    """Whatever the size of its batches."""
    found = {"mosec, batches of 4": 1.2, "mosec, batches of 32": 1.5, "ray": 2.0}

    assert serving_table._at_best(found) == ["1.2 x mosec", "2.0 x ray"]


def answered(*seconds: float, due: float = 0.0) -> list[Call]:
    """Return calls that were due at once and took so long."""
    return [Call(due, each, "OK") for each in seconds]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([], math.inf),
        (answered(0.1, 0.2, 9.0, due=0.5), 0.0),  # one slow call of three is no slow service
        (answered(0.3, 0.3, 0.1, due=0.5), math.inf),
        ([*answered(0.5, 0.5, due=2.5), *answered(0.1, 0.1, due=7.8)], 3.0),
        ([Call(1.5, 0.01, "UNAVAILABLE"), *answered(0.1, due=9.0)], 5.0),
    ],
)
def test_latency_is_usual_again_when_five_seconds_of_calls_are(
    calls: list[Call], expected: float
) -> None:
    """Bad is a call without an answer, or a median over twice the usual."""
    assert recovered_after(calls, usual=0.1) == expected


def test_a_quantile_of_too_few_is_none() -> None:
    """The largest of twenty says nothing of one in a hundred."""
    assert quantile(range(100), 0.99) == 99
    assert quantile(range(99), 0.99) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0


@pytest.mark.slow
def test_the_latency_benchmark_runs_on_a_tiny_bundle(bundle: Path, tmp_path: Path) -> None:
    """Two loads and a short overload: every call is in the figures, and the curve is drawn."""
    found = run(
        "serving.latency", bundle, tmp_path / "out.json",
        texts=64, texts_a_request=4, seconds=1.5, rounds=1, overload_seconds=4, deadline=20,
        times=1.5,
    )  # fmt: skip

    assert [row["load"] for row in found["curve"]] == [0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2]
    for row in (*found["curve"], found["overload"]):
        assert sum(row["codes"].values()) == row["calls"]
    assert len(found["overload"]["resident_bytes"]) >= 4
    assert (tmp_path / "out.svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_the_reload_benchmark_runs_on_a_tiny_bundle(bundle: Path, tmp_path: Path) -> None:
    """Each reload is one, and no call fails."""
    found = run("serving.reloads", bundle, tmp_path / "out.json", texts=64, reloads=4)

    assert [row["reload"] for row in found["each"]] == [1, 2, 3, 4]
    assert found["failed_reloads"] == 0
    assert list(found["codes"]) == ["OK"]


@pytest.mark.slow
def test_the_benchmark_of_cut_calls_runs_on_a_tiny_bundle(bundle: Path, tmp_path: Path) -> None:
    """Every bad call ends in some way, and the healthy ones go on."""
    found = run(
        "serving.cancelled_calls", bundle, tmp_path / "out.json",
        texts=64, cut=60, malformed=40, settle=0
    )  # fmt: skip

    assert sum(found["ended"].values()) == 100
    assert {"cancelled", "disconnected"} <= found["ended"].keys()
    assert found["healthy_texts"] >= found["healthy_calls"] > 0
    assert found["after"]["waiting_texts"] == found["after"]["in_flight_requests"] == 0


def test_made_up_bodies_are_as_many_as_asked_for() -> None:
    """Among them are ones that are no request, and no two runs differ."""
    bodies = made_up(30, 1, ["the battery is good"])

    assert len(bodies) == 30
    assert len(set(bodies)) > 10


async def answer_of(raw: bytes) -> bytes:
    """Return what `ask` makes of *raw*, sent by a server that asks nothing back."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(raw)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        try:
            return await ask(reader, writer, request(PEERS[0], "good"))
        finally:
            writer.close()


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n[0.1]",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[0\r\n3\r\n.1]\r\n0\r\n\r\n",
    ],
)
async def test_a_peer_is_read_whole(raw: bytes) -> None:
    """Whether it says the length before or sends in chunks."""
    assert await answer_of(raw) == b"[0.1]"


async def test_a_peer_that_fails_is_no_rate() -> None:
    """Fast errors would look like speed."""
    with pytest.raises(SystemExit, match="not a success"):
        await answer_of(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")

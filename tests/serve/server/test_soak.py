"""Reloads, cancellations and drops under load: nothing is lost, mixed up, or left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import weakref
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

import sentimill.server.model_loader
from live_server import WAIT_SECONDS, until
from raw_calls import request_of
from reload_server import Reloading, reloading, version
from sentimill.classifier import Classifier
from sentimill.server.model_slot import warm_up
from sentimill.server.sentiment_service import SERVICE
from sentimill.v1 import sentiment_pb2 as pb

RELOADS = 14
CALLERS = 8
LABELS = {"good": "positive", "bad": "negative", "the": "neutral"}

OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
"""Channel options without which all channels of a process to one address share a connection."""

MODEL_THREADS = 3
"""What one model may have with `threads=1`: one engine thread and two tokenizers."""


class Load:
    """Callers that ask, change their minds, hang up, and check every answer they get."""

    def __init__(self, address: str, digests: set[str]) -> None:
        self.address = address
        self.digests = digests
        self.answered = 0
        self.given_up = 0
        self.seen: set[str] = set()
        self.stop = False

    async def reaches(self, answered: int, callers: list[asyncio.Task[None]]) -> None:
        """Wait for so many answers, or for a caller that failed: none ends by itself."""
        await until(lambda: self.answered >= answered or any(task.done() for task in callers))

    async def caller(self, seed: int) -> None:
        """Call until told to stop, each few calls over a new connection."""
        choose = random.Random(seed)
        while not self.stop:
            async with grpc.aio.insecure_channel(self.address, OWN_CONNECTION) as channel:
                call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
                call = channel.unary_unary(f"/{SERVICE}/Classify")
                for _ in range(choose.randint(1, 20)):
                    await self._ask(call, choose)
                # One more, which the closing connection cuts.
                cut = call(request_of("good").SerializeToString())
                await self._begun(choose)
            await asyncio.gather(cut.code(), return_exceptions=True)

    async def _ask(
        self, call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes], choose: random.Random
    ) -> None:
        words = choose.choices(tuple(LABELS), k=choose.randint(1, 12))
        texts = [" ".join([word] * choose.randint(1, 6)) for word in words]
        under_way = call(request_of(*texts).SerializeToString(), timeout=WAIT_SECONDS)
        if choose.random() < 0.3:
            await self._begun(choose)
            under_way.cancel()
        try:
            answer = pb.ClassifyResponse.FromString(await under_way)
        except asyncio.CancelledError:
            self.given_up += 1
            return
        assert [one.prediction.label for one in answer.results] == [LABELS[w] for w in words]
        assert answer.model_digest in self.digests
        self.seen.add(answer.model_digest)
        self.answered += 1

    async def _begun(self, choose: random.Random) -> None:
        """Let a call begin, and go on for a while.

        A call of `grpc.aio` that is cancelled before its task has run sends nothing, and it is in a
        cycle of references that keeps the connection open for as long as the collector likes.
        """
        for _ in range(choose.randint(1, 20)):
            await asyncio.sleep(0)


def left_open() -> tuple[int, int, int]:
    """Return how many tasks, file descriptors, and threads of models there are now."""
    names = ("engine", "tokenizer")
    threads = [each for each in threading.enumerate() if each.name.startswith(names)]
    return len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd")), len(threads)


def within(left: tuple[int, int, int], most: tuple[int, int, int]) -> bool:
    """Return whether nothing is left beyond *most*, each compared with its own."""
    return all(one <= bound for one, bound in zip(left, most, strict=True))


async def under_load(made: Reloading, folders: list[Path], digests: set[str]) -> Load:
    """Reload each of *folders* in turn while callers call, and return when all have left."""
    load = Load(made.address, digests)
    callers = [asyncio.create_task(load.caller(seed)) for seed in range(CALLERS)]
    try:
        for folder in folders:
            enough = load.answered + CALLERS
            made.lead_to(folder)
            before = await made.reloads()
            assert await made.reload() == (before[0] + 1, before[1])
            await load.reaches(enough, callers)
    finally:
        load.stop = True
        await asyncio.gather(*callers)
    return load


@pytest.mark.slow
async def test_reloads_and_cancellations_under_load_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Every call is answered once, rightly, by a model that was served; what was replaced goes."""
    models: list[weakref.ref[Classifier]] = []

    def remembered(classifier: Classifier, batch_tokens: int) -> None:
        models.append(weakref.ref(classifier))
        warm_up(classifier, batch_tokens)

    def alive() -> list[weakref.ref[Classifier]]:
        return [model for model in models if model() is not None]

    monkeypatch.setattr(sentimill.server.model_loader, "warm_up", remembered)
    gc.collect()
    gc.disable()  # a model in a cycle of references stays for as long as the collector likes
    request.addfinalizer(gc.enable)
    first, second = version(tmp_path / "v1"), version(tmp_path / "v2")
    digests = {first.digest, second.digest}
    async with reloading(first.path) as made:
        tasks, descriptors, _ = left_open()
        most = (tasks, descriptors, MODEL_THREADS)  # threads begin with the first call
        load = await under_load(made, [second.path, first.path] * (RELOADS // 2), digests)
        with suppress(TimeoutError):
            await until(lambda: len(alive()) == 1 and within(left_open(), most))
        left = left_open()
        kept = len(alive())
        assert within(left, most), f"{left} tasks, descriptors and threads, of at most {most}"
        waiting = await made.metric("sentimill_waiting_texts")
        assert await made.digests() == {first.digest}

    assert load.seen == digests
    assert load.given_up > 0
    assert load.answered > RELOADS * CALLERS
    assert (len(models), kept, waiting) == (1 + RELOADS, 1, 0)

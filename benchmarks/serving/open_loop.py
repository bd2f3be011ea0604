"""Open-loop load: calls come at random times, whether the server keeps up or not.

Arrivals are a Poisson process, and each latency is counted from the moment when the call was due.
So a server cannot hide a stall by slowing its callers (coordinated omission).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc

from benchmarks.serving.request_payloads import method_of

__all__ = ["Call", "codes", "offer", "quantile"]

CHANNELS = 4


@dataclass(frozen=True, slots=True)
class Call:
    """One call. due: when it was due, in seconds after the start. seconds: from then to its end."""

    due: float
    seconds: float
    code: str


async def offer(
    address: str,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    deadline: float,
    seed: int,
) -> list[Call]:
    """Send *rate* calls a second for *seconds*, each with *deadline* seconds; return all of them.

    A call that would wait longer is counted as it ends: DEADLINE_EXCEEDED or refused.
    """
    choose = random.Random(seed)
    calls: list[Call] = []
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        methods: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = []
        for _ in range(CHANNELS):
            channel = grpc.aio.insecure_channel(address, options=options)
            await stack.enter_async_context(channel)
            await channel.channel_ready()
            methods.append(method_of(channel))
        began = time.perf_counter()

        async def ask(due: float, number: int) -> None:
            call = methods[number % CHANNELS](requests[number % len(requests)], timeout=deadline)
            code = await call.code()
            calls.append(Call(due, time.perf_counter() - began - due, code.name))

        asking = []
        due, number = choose.expovariate(rate), choose.randrange(len(requests))
        while due < seconds:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            asking.append(asyncio.create_task(ask(due, number)))
            due += choose.expovariate(rate)
            number += 1
        await asyncio.gather(*asking)
    return calls


def codes(calls: Sequence[Call]) -> dict[str, int]:
    """Return how many calls ended with each code."""
    return dict(sorted(Counter(call.code for call in calls).items()))


def quantile(seconds: Sequence[float], share: float) -> float | None:
    """Return the *share*-quantile by rank, None where it would only be the largest value."""
    ordered = sorted(seconds)
    if len(ordered) * (1 - share) < 1:
        return None
    return ordered[int(len(ordered) * share)]

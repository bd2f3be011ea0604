"""A server in this event loop whose bundle is a link, and bundles to let it lead to."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import msgspec

from live_server import WAIT_SECONDS
from raw_calls import request_of
from sentimill.bundle.manifest import Manifest
from sentimill.bundle.reader import Bundle
from sentimill.server.lifecycle import Signals, start
from sentimill.server.sentiment_service import SERVICE
from sentimill.server.settings import Serve
from sentimill.v1 import sentiment_pb2 as pb
from tiny_bundle import write_tiny_bundle


class Reloading:
    """A server in this event loop whose bundle is a link."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.signals = Signals()
        self.wish = self.signals.reload
        self.address = ""
        self.metrics = ""

    def lead_to(self, folder: Path) -> None:
        """Let the link lead to *folder*."""
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(folder)

    async def reload(self) -> tuple[int, int]:
        """Ask for a reload, wait for its result, and return how many went well and how many not."""
        before = await self.reloads()
        self.wish.set()
        async with asyncio.timeout(WAIT_SECONDS):
            while (after := await self.reloads()) == before:
                await asyncio.sleep(0.005)
        return after

    async def metric(self, sample: str) -> int:
        """Return a sample of the page of metrics, named as it is there."""
        url = f"http://{self.metrics}/metrics"
        page = (await asyncio.to_thread(lambda: urllib.request.urlopen(url).read())).decode()
        found = dict(line.rsplit(" ", 1) for line in page.splitlines() if line[0] != "#")
        return int(float(found[sample]))

    async def reloads(self) -> tuple[int, int]:
        """Return how many reloads went well and how many did not."""
        ok = await self.metric('sentimill_reloads_total{result="ok"}')
        return ok, await self.metric('sentimill_reloads_total{result="failed"}')

    async def digests(self) -> set[str]:
        """Return which model answers, by what `GetModel` says and by what an answer carries."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            get: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            classify: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            get = channel.unary_unary(f"/{SERVICE}/GetModel")
            classify = channel.unary_unary(f"/{SERVICE}/Classify")
            model = pb.GetModelResponse.FromString(await get(b""))
            data = await classify(request_of("good").SerializeToString())
            answer = pb.ClassifyResponse.FromString(data)
        assert answer.results[0].prediction.label == "positive"
        return {model.digest, answer.model_digest}


@asynccontextmanager
async def reloading(
    folder: Path, *, index: Path | None = None, tokens: Path | None = None
) -> AsyncIterator[Reloading]:
    """Serve *folder* behind a link."""
    made = Reloading(folder.parent / "live")
    made.lead_to(folder)
    async with AsyncExitStack() as stack:
        config = Serve(
            bundle=made.link, port=0, metrics_port=0, threads=1, index=index, tokens=tokens
        )
        serving = await start(config, stack, made.signals)
        made.address, made.metrics = serving.address, serving.metrics_address
        yield made


def version(path: Path, **changes: object) -> Bundle:
    """Write a tiny bundle whose version is the name of its folder."""

    def change(manifest: Manifest) -> Manifest:
        return msgspec.structs.replace(manifest, version=path.name, **changes)

    return write_tiny_bundle(path, change=change)

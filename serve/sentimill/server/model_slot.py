"""A loaded model, and the slot in which another model replaces it.

Each loaded model has a queue, engine threads and tokenizers of its own, and one model answers a
request from its first token to its last probability. So a swap needs no lock and no pause: new
requests get the new model, and the old one is closed when its last request has its answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sentimill.batching.scheduler import Scheduler
from sentimill.classifier import Classifier
from sentimill.engine.hardware import give_memory_back
from sentimill.errors import TextError, UnavailableError
from sentimill.evidence.index import Index
from sentimill.server.daemon_thread import run_in_daemon_thread
from sentimill.text.tokenizer import Encoded, TextEncoder
from sentimill.types import Neighbour

_CLOSE_SECONDS: Final = 5.0
"""How long an engine call may continue after its model is closed. A call takes about 0.1 s."""


class LoadedModel:
    """One classifier with its queue, its tokenizer threads, and an index for some callers.

    idle: set while no request uses the model.
    """

    def __init__(
        self,
        classifier: Classifier,
        scheduler: Scheduler,
        *,
        tokenizer_threads: int,
        indexes: Mapping[str, Index],
    ) -> None:
        self.classifier = classifier
        self.scheduler = scheduler
        self.indexes = indexes
        self._threads = ThreadPoolExecutor(tokenizer_threads, thread_name_prefix="tokenizer")
        self._own = threading.local()
        self._users = 0
        self.idle = asyncio.Event()
        self.idle.set()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep the model open for one request."""
        self._users += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._users -= 1
            if self._users == 0:
                self.idle.set()

    async def encode(self, texts: Iterable[str | TextError]) -> list[Encoded | TextError]:
        """Tokenize in one of the threads; *texts* is iterated there too, and errors in it stay."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._encode, texts)

    async def nearest(
        self, caller: str, rows: Sequence[NDArray[np.float32]], count: int
    ) -> list[tuple[Neighbour, ...]]:
        """Look *rows* of logits and states up in the index of *caller*, in one of the threads.

        Raises UnavailableError if the model was closed meanwhile because its engine failed.
        """
        states = np.stack(rows)[:, len(self.classifier.labels) :]
        search = self.indexes[caller].nearest
        try:
            found = asyncio.get_running_loop().run_in_executor(self._threads, search, states, count)
        except RuntimeError as error:  # the threads take no more work
            why = "the engine failed and is being restarted: another server may answer"
            raise UnavailableError(why, reason="ENGINE_FAILED") from error
        return await found

    async def close(self, timeout_seconds: float = _CLOSE_SECONDS) -> None:
        """Stop queue and threads; waiting requests get UnavailableError. May be called again.

        timeout_seconds: how long engine calls may continue. A thread that hangs cannot be stopped.
        """
        await self.scheduler.close(timeout_seconds)
        self._threads.shutdown(wait=False)

    def _encode(self, texts: Iterable[str | TextError]) -> list[Encoded | TextError]:
        encoder: TextEncoder | None = getattr(self._own, "encoder", None)
        if encoder is None:
            encoder = self._own.encoder = self.classifier.new_encoder()
        decoded = list(texts)
        encoded = iter(encoder.encode([text for text in decoded if isinstance(text, str)]))
        return [text if isinstance(text, TextError) else next(encoded) for text in decoded]


class ModelSlot:
    """Holds the model that answers, and the models before it that still finish their requests.

    now: the model that new requests get.
    """

    def __init__(self, first: LoadedModel) -> None:
        self.now = first
        self._leaving: set[LoadedModel] = set()

    @contextmanager
    def use(self) -> Iterator[LoadedModel]:
        """Yield the present model for one request, and keep it open meanwhile."""
        model = self.now
        with model.used():
            yield model

    def put(self, new: LoadedModel) -> None:
        """Let *new* answer from now on."""
        self._leaving.add(self.now)
        self.now = new

    async def drain(self) -> None:
        """Close the replaced models, each after its last request."""
        if not self._leaving:
            return
        while self._leaving:
            old = next(iter(self._leaving))
            await old.idle.wait()
            await old.close()
            self._leaving.discard(old)
            del old  # and its weights
        await run_in_daemon_thread(give_memory_back)

    async def close(self) -> None:
        """Close every model, drained or not."""
        for model in (*self._leaving, self.now):
            await model.close()


def warm_up(classifier: Classifier, batch_tokens: int) -> None:
    """Run each length that the engine rounds to, as one text and as a full batch.

    Then no caller waits until kernels are chosen or memory is set up. An engine that does not round
    lengths only runs the longest. As many calls run at once as later in service, since each may
    have memory of its own. Raises EngineError when the engine fails.
    """
    manifest, info = classifier.bundle.manifest, classifier.engine.info
    lengths = {manifest.max_tokens}
    if info.token_step > 1:
        lengths |= {classifier.padded_length(n) for n in range(1, manifest.max_tokens)}
    for length in sorted(lengths):
        row = np.full(length, manifest.pad_id, dtype=np.int64)
        classifier.run([row])
        rows = max(1, batch_tokens // length)
        if rows * info.calls > 1:  # otherwise the same has just run
            classifier.at_once(classifier.run, [[row] * rows] * info.calls)

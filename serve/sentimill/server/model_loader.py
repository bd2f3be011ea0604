"""Turns a bundle into a model that answers: verifies, loads and warms it, adds queue and indexes.

On SIGHUP, bundle and indexes are loaded again while the old model still answers. The folder is not
polled, because a half-written bundle would be loaded. `worker_process` passes the signal on to each
worker, even to one that starts meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sentimill.batching.admission import Admission
from sentimill.batching.scheduler import Scheduler
from sentimill.bundle.manifest import MANIFEST
from sentimill.bundle.reader import open_bundle
from sentimill.classifier import Classifier
from sentimill.errors import SentimillError, UsageError
from sentimill.evidence.index import Index
from sentimill.observability.metrics import Metrics
from sentimill.server.access.auth import ANONYMOUS
from sentimill.server.daemon_thread import run_in_daemon_thread
from sentimill.server.model_slot import LoadedModel, ModelSlot, warm_up
from sentimill.server.settings import Serve
from sentimill.text.language import load_detector

log = logging.getLogger(__name__)

_LEAST_USEFUL: Final = 0.75
"""Share of a batch on a CPU that is not padding; see `take_batch`."""


@dataclass(frozen=True, slots=True)
class ModelLoader:
    """Loads the bundle and the indexes, always with the same settings."""

    settings: Serve
    admission: Admission
    metrics: Metrics

    async def load(
        self, folder: Path | None = None, indexes: Mapping[str, Index] | None = None
    ) -> LoadedModel:
        """Verify, load and warm a bundle in a thread, and start its queue.

        folder: the bundle to load, instead of the one that `settings.bundle` leads to. indexes:
        those of the previous model, which are kept if they belong to this bundle.

        Raises:
            BundleError: an index is damaged, or of another bundle.
            BundleError, EngineError: the model does not verify, load or give its golden answers.
            UsageError: the path of the indexes has none.
        """
        # A link is resolved once, so that all files come from one folder even if it changes.
        folder = folder or self.settings.bundle.resolve()
        classifier = await run_in_daemon_thread(lambda: self._read(folder))
        digest = classifier.bundle.digest
        if indexes is None or any(one.bundle != digest for one in indexes.values()):
            indexes = await run_in_daemon_thread(lambda: self._open_indexes(digest))
        self.metrics.index_rows.set(sum(map(len, indexes.values())))
        info = classifier.engine.info
        scheduler = Scheduler(
            classifier.run,
            self.admission,
            self.metrics,
            budget=self.settings.batch_tokens or classifier.batch_tokens,
            padded_length=classifier.padded_length,
            # Padding costs a CPU as much as text does; a GPU would rather have full batches.
            least_useful=_LEAST_USEFUL if info.provider == "cpu" else 0.0,
            computed_tokens=classifier.computed_tokens,
            calls=info.calls,
        )
        scheduler.start()
        return LoadedModel(
            classifier,
            scheduler,
            tokenizer_threads=self.settings.tokenizer_threads,
            indexes=indexes,
        )

    def _read(self, folder: Path) -> Classifier:
        open_bundle(folder).verify()
        classifier = Classifier.load(
            folder,
            precision=self.settings.precision,
            engine=self.settings.engine,
            provider=self.settings.provider,
            threads=self.settings.threads,
            detect_language=self.settings.detect_language,
            states=self.settings.index is not None,
        )
        if classifier.encoder.languages:
            load_detector()  # 0.6 s, for which no caller should wait
        info = classifier.engine.info
        shown = (info.engine, info.provider, info.precision, info.threads, classifier.choice.why)
        log.info("engine %s on %s in %s, %d threads: %s", *shown)
        warm_up(classifier, self.settings.batch_tokens or classifier.batch_tokens)
        return classifier

    def _open_indexes(self, digest: str) -> dict[str, Index]:
        """Return the index of each caller, by the caller's name."""
        path, a_caller = self.settings.index, self.settings.tokens is not None
        if path is None:
            return {}
        if not path.is_dir() or (path / MANIFEST).exists() == a_caller:
            why = f"--index {path} must be an index; or, with --tokens, a folder that has an index"
            why += " for each caller, named like the caller in the file of tokens"
            raise UsageError(why, reason="BAD_INDEX")
        if not a_caller:
            return {ANONYMOUS.name: Index.open(path, digest)}
        # A name that begins with a dot is that of an index that is being written.
        folders = [one for one in path.iterdir() if not one.name.startswith(".")]
        return {one.name: Index.open(one, digest) for one in folders}


async def reload_when_asked(
    asked: asyncio.Event,
    loader: ModelLoader,
    slot: ModelSlot,
    announce: Callable[[Classifier], None],
) -> None:
    """Load the bundle again whenever *asked* is set. A failure leaves the model as it is.

    announce: called with each new model. A signal that comes during a load causes one more load
    after it.
    """
    while True:
        await asked.wait()
        asked.clear()
        before = slot.now.classifier.bundle
        try:
            new = await loader.load()
        except Exception as error:
            loader.metrics.observe_reload(ok=False)
            # A SentimillError explains itself; any other error needs its traceback.
            trace = None if isinstance(error, SentimillError) else error
            kept = (before.manifest.name, before.digest[:12], error)
            log.error("reload failed, still serving %s (%s): %s", *kept, exc_info=trace)
            continue
        slot.put(new)
        announce(new.classifier)
        loader.metrics.observe_reload(ok=True)
        await slot.drain()  # before another load, so that two models are held at most

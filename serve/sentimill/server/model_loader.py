"""A bundle becomes a model that answers: verify, load, warm up, give it a queue."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sentimill.batching.admission import Admission
from sentimill.batching.scheduler import Scheduler
from sentimill.bundle.reader import open_bundle
from sentimill.classifier import Classifier
from sentimill.engine.base import EngineName, Precision, Provider
from sentimill.observability.metrics import Metrics
from sentimill.server.daemon_thread import run_in_daemon_thread
from sentimill.server.model_slot import LoadedModel, warm_up
from sentimill.text.language import load_detector

__all__ = ["ModelLoader"]

log = logging.getLogger(__name__)

_LEAST_USEFUL: Final = 0.75
"""Share of a batch on a CPU that is not padding; see `take_batch`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoader:
    """Loads the bundle that a path leads to, always with the same settings."""

    bundle: Path
    precision: Precision
    engine: EngineName
    provider: Provider
    threads: int | None
    detect_language: bool
    tokenizer_threads: int
    batch_tokens: int | None
    admission: Admission
    metrics: Metrics

    async def load(self, folder: Path | None = None) -> LoadedModel:
        """Verify, load and warm a bundle in a thread, and start its queue.

        folder: the bundle's own, instead of the one that the path leads to.

        Raises:
            BundleError, EngineError: the model does not verify, load or give its golden answers.
        """
        # A link is followed once, so that all files are of one folder if it changes meanwhile.
        folder = folder or self.bundle.resolve()
        classifier = await run_in_daemon_thread(lambda: self._read(folder))
        info = classifier.engine.info
        scheduler = Scheduler(
            classifier.run,
            self.admission,
            self.metrics,
            budget=self.batch_tokens or classifier.batch_tokens,
            padded_length=classifier.padded_length,
            # Padding costs a CPU as much as text does; a GPU would rather have full batches.
            least_useful=_LEAST_USEFUL if info.provider == "cpu" else 0.0,
            computed_tokens=classifier.computed_tokens,
            calls=info.calls,
        )
        scheduler.start()
        return LoadedModel(classifier, scheduler, tokenizer_threads=self.tokenizer_threads)

    def _read(self, folder: Path) -> Classifier:
        open_bundle(folder).verify()
        classifier = Classifier.load(
            folder,
            precision=self.precision,
            engine=self.engine,
            provider=self.provider,
            threads=self.threads,
            detect_language=self.detect_language,
        )
        if classifier.encoder.languages:
            load_detector()  # 0.6 s, for which no caller should wait
        info = classifier.engine.info
        shown = (info.engine, info.provider, info.precision, info.threads, classifier.choice.why)
        log.info("engine %s on %s in %s, %d threads: %s", *shown)
        warm_up(classifier, self.batch_tokens or classifier.batch_tokens)
        return classifier

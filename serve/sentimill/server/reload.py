"""Reload: on SIGHUP bundle and indexes are loaded again, next to the model that answers till then.

Nothing polls the folder: a half-written bundle would be loaded. `worker_process` passes the signal
on to each worker, and to one that was started meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sentimill.classifier import Classifier
from sentimill.errors import SentimillError
from sentimill.observability.metrics import Metrics
from sentimill.server.model_loader import ModelLoader
from sentimill.server.model_slot import ModelSlot

__all__ = ["reload_when_asked"]

log = logging.getLogger(__name__)


async def reload_when_asked(
    asked: asyncio.Event,
    loader: ModelLoader,
    slot: ModelSlot,
    metrics: Metrics,
    announce: Callable[[Classifier], None],
) -> None:
    """Load the bundle again whenever *asked* is set. A failure leaves the model as it is.

    announce: told of each model that answers from then on. A signal that comes while a bundle is
    loaded causes one more load after it.
    """
    while True:
        await asked.wait()
        asked.clear()
        before = slot.now.classifier.bundle
        try:
            new = await loader.load()
        except Exception as error:
            metrics.observe_reload(ok=False)
            # Our own errors say all there is to say; any other needs its traceback.
            trace = None if isinstance(error, SentimillError) else error
            kept = (before.manifest.name, before.digest[:12], error)
            log.error("reload failed, still serving %s (%s): %s", *kept, exc_info=trace)
            continue
        slot.put(new)
        announce(new.classifier)
        metrics.observe_reload(ok=True)
        await slot.drain()  # before another load, so that two models are held at most

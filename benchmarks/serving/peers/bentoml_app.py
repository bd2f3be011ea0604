"""The bundle behind BentoML: one worker, adaptive batches, JSON."""

import bentoml
from model import MAX_BATCH, Model


@bentoml.service(workers=1, traffic={"timeout": 120, "max_concurrency": 256})
class Sentiment:
    """A list of texts a request; batches are made of several requests."""

    def __init__(self) -> None:
        """Load the model."""
        self._model = Model()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000)
    def classify(self, texts: list[str]) -> list[list[float]]:
        """Answer a batch."""
        return self._model.probs(texts)

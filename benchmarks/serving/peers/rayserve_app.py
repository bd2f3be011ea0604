"""The bundle behind Ray Serve: one replica, dynamic batches, JSON."""

import os
import sys
from typing import Any

import ray
from model import MAX_BATCH, MAX_WAIT_MS, Model
from ray import serve


@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 1},
)
class Sentiment:
    """One text a request."""

    def __init__(self) -> None:
        """Load the model."""
        self._model = Model()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=MAX_WAIT_MS / 1000)
    async def answer(self, texts: list[str]) -> list[list[float]]:
        """Answer a batch."""
        return self._model.probs(texts)

    async def __call__(self, request: Any) -> dict[str, list[float]]:
        """Take the text out and name the answer."""
        return {"probs": await self.answer((await request.json())["text"])}


if __name__ == "__main__":
    named = ("PYTHONPATH", "PEER_BUNDLE", "PEER_BATCH", "PEER_PRECISION", "PEER_THREADS")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {name: os.environ[name] for name in named}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Sentiment.bind(), route_prefix="/", blocking=True)

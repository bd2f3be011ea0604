"""The bundle behind mosec: one worker, dynamic batches, JSON."""

from model import MAX_BATCH, MAX_WAIT_MS, Model
from mosec import Server, Worker


class Sentiment(Worker):
    """One text a request."""

    def __init__(self) -> None:
        """Load the model."""
        super().__init__()
        self._model = Model()

    def forward(self, data: list[dict[str, str]]) -> list[list[float]]:
        """Answer a batch."""
        return self._model.probs([one["text"] for one in data])


if __name__ == "__main__":
    server = Server()
    server.append_worker(Sentiment, num=1, max_batch_size=MAX_BATCH, max_wait_time=MAX_WAIT_MS)
    server.run()  # reads --port

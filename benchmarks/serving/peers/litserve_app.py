"""The bundle behind LitServe: one worker, dynamic batches, JSON."""

import sys

import litserve
from model import MAX_BATCH, MAX_WAIT_MS, Model


class Sentiment(litserve.LitAPI):
    """One text a request."""

    def setup(self, device: str) -> None:
        """Load the model."""
        self._model = Model()

    def decode_request(self, request: dict[str, str]) -> str:
        """Take the text out."""
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        """Keep texts as a list; the default stacks arrays."""
        return list(inputs)

    def predict(self, x: list[str]) -> list[list[float]]:
        """Answer a batch."""
        return self._model.probs(x)

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        """Give each caller its own."""
        return output

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        """Name the answer."""
        return {"probs": output}


if __name__ == "__main__":
    api = Sentiment(max_batch_size=MAX_BATCH, batch_timeout=MAX_WAIT_MS / 1000)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, timeout=120)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)

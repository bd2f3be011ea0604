"""The bundle behind MLServer: a custom runtime with adaptive batching, the V2 protocol."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from model import Model


class Sentiment(MLModel):
    """Texts in the first input."""

    async def load(self) -> bool:
        """Load the model."""
        self._model = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a batch."""
        texts = StringCodec.decode_input(payload.inputs[0])
        probs = np.array(self._model.probs(texts), np.float32)
        outputs = [NumpyCodec.encode_output("probs", probs)]
        return InferenceResponse(model_name=self.name, outputs=outputs)

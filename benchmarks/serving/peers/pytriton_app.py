"""The bundle behind PyTriton: Triton's own dynamic batcher, the V2 protocol."""

import os
import sys
import sysconfig

import numpy as np
from model import MAX_BATCH, MAX_WAIT_MS, Model
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

model = Model()


@batch
def infer(text: NDArray[np.bytes_]) -> dict[str, NDArray[np.float32]]:
    """Answer a batch."""
    probs = model.probs([row[0].decode() for row in text])
    return {"probs": np.array(probs, np.float32)}


if __name__ == "__main__":
    # Triton's own interpreter finds libpython by name alone. If it finds the system's first, that
    # does not fit this Python's standard library.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    port = int(sys.argv[1])
    config = TritonConfig(http_port=port, grpc_port=port + 1, metrics_port=port + 2)
    with Triton(config=config) as triton:
        triton.bind(
            model_name="sentiment",
            infer_func=infer,
            inputs=[Tensor(name="text", dtype=np.bytes_, shape=(1,))],
            outputs=[Tensor(name="probs", dtype=np.float32, shape=(3,))],
            config=ModelConfig(
                max_batch_size=MAX_BATCH,
                batcher=DynamicBatcher(max_queue_delay_microseconds=1000 * MAX_WAIT_MS),
            ),
        )
        triton.serve()

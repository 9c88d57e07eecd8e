"""nvidia-pytriton: Triton's core and HTTP front end with this process as its Python back end.

It takes three ports: PORT (HTTP), PORT1 (gRPC), PORT2 (metrics).
"""

import os

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

import peer_model as model


@batch
def score(x: np.ndarray) -> list[np.ndarray]:
    return [model.run(x)]


if __name__ == "__main__":
    listen = TritonConfig(
        http_address="127.0.0.1",
        http_port=model.PORT,
        grpc_address="127.0.0.1",
        grpc_port=int(os.environ["PORT1"]),
        metrics_address="127.0.0.1",
        metrics_port=int(os.environ["PORT2"]),
        log_verbose=0,
    )
    batcher = DynamicBatcher(max_queue_delay_microseconds=model.WAIT_MS * 1000)
    with Triton(config=listen) as triton:
        triton.bind(
            model_name="model",
            infer_func=score,
            inputs=[Tensor(name="x", dtype=np.float32, shape=model.row_shape())],
            outputs=[Tensor(name="y", dtype=np.float32, shape=(model.score_width(),))],
            config=ModelConfig(max_batch_size=model.MAX_BATCH, batcher=batcher),
        )
        triton.serve()

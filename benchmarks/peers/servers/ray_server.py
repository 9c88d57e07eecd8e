"""Ray Serve with @serve.batch. Its daemons bind every interface: only run it in a private network."""

import os
import signal

import numpy as np
import ray
from ray import serve
from starlette.requests import Request

import peer_model as model


@serve.deployment(num_replicas=1, max_ongoing_requests=200, ray_actor_options={"num_cpus": 0.1})
class Scorer:
    @serve.batch(max_batch_size=model.MAX_BATCH, batch_wait_timeout_s=model.WAIT_MS / 1000)
    async def score(self, rows):
        return [row.tolist() for row in model.run(np.stack(rows))]

    async def __call__(self, request: Request):
        if model.TAKES_JPEG:
            row = model.decode(await request.body())
        else:
            row = np.asarray((await request.json())["instances"], np.float32)[0]
        return {"predictions": [await self.score(row)]}


if __name__ == "__main__":
    settings = {name: value for name, value in os.environ.items() if name.startswith(("PEERS_", "PYTHONPATH"))}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200_000_000,  # bytes
        _node_ip_address="127.0.0.1",
        runtime_env={"env_vars": settings},
        logging_level="ERROR",
    )
    serve.start(http_options={"host": "127.0.0.1", "port": model.PORT}, logging_config={"enable_access_log": False})
    serve.run(Scorer.bind(), route_prefix="/predict")
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    ray.shutdown()

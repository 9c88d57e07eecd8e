"""KServe's Python model server, V1 protocol. It has no batching of its own."""

import tempfile

import kserve
import numpy as np
import uvicorn
import yaml
from kserve.logging import KSERVE_LOG_CONFIG, configure_logging

import peer_model as model


class Scorer(kserve.Model):
    def __init__(self):
        super().__init__("model")
        model.session()
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        rows = np.asarray(payload["instances"], np.float32)
        return {"predictions": model.run(rows).tolist()}


def listen_on_loopback_only() -> None:
    """KServe binds every interface and has no option for it, so correct what it tells uvicorn."""
    config = uvicorn.Config
    uvicorn.Config = lambda app, **settings: config(app, **{**settings, "host": "127.0.0.1"})


def silence_logs() -> None:
    """Set every logger of KServe's own configuration to ERROR."""
    loggers = {name: {**entry, "level": "ERROR"} for name, entry in KSERVE_LOG_CONFIG["loggers"].items()}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({**KSERVE_LOG_CONFIG, "loggers": loggers}, file)
        file.flush()
        configure_logging(file.name)


if __name__ == "__main__":
    listen_on_loopback_only()
    if model.QUIET:
        silence_logs()
    kserve.ModelServer(
        http_port=model.PORT, enable_grpc=False, workers=1, access_log_format=None, enable_latency_logging=False
    ).start([Scorer()])

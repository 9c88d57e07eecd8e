"""LitServe with dynamic batching; JPEG arrives as the form field `content`, which is its idiom."""

import os

import litserve
import numpy as np

import peer_model as model


class Scorer(litserve.LitAPI):
    def setup(self, device):
        model.session()

    def decode_request(self, request) -> np.ndarray:
        if model.TAKES_JPEG:
            return model.decode(request["content"].file.read())
        return np.asarray(request["instances"], np.float32)[0]

    def batch(self, inputs):
        return np.stack(inputs)

    def predict(self, x):
        return model.run(x) if model.MAX_BATCH > 1 else model.run(x[None])[0]

    def unbatch(self, output):
        return list(output)

    def encode_response(self, output):
        return {"predictions": [output.tolist()]}


if __name__ == "__main__":
    wait_s = model.WAIT_MS / 1000 if model.MAX_BATCH > 1 else 0.0
    api = Scorer(max_batch_size=model.MAX_BATCH, batch_timeout=wait_s)
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=1, fast_queue=os.environ.get("PEERS_FAST_QUEUE") == "1"
    )
    server.run(host="127.0.0.1", port=model.PORT, generate_client_file=False, log_level="warning", access_log=False)

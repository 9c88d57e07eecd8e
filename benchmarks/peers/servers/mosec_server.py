"""mosec: as its examples have it, or tuned by its user (orjson; simplejpeg and OpenCV in `decode`)."""

import numpy as np
import orjson
from mosec import Server, Worker

import peer_model as model


class JsonScorer(Worker):
    """Bodies {"instances": [[...]]}; mosec's own json codec."""

    def __init__(self):
        model.session()

    def forward(self, requests):
        if model.MAX_BATCH == 1:  # mosec then hands over the request itself, not a list
            return self._score([requests])[0]
        return self._score(requests)

    def _score(self, requests: list) -> list[dict]:
        rows = [np.asarray(request["instances"], np.float32) for request in requests]
        scores = model.run(np.concatenate(rows))
        answers, start = [], 0
        for part in rows:
            answers.append({"predictions": scores[start : start + len(part)].tolist()})
            start += len(part)
        return answers


class JpegScorer(JsonScorer):
    """Bodies are JPEG bytes."""

    def deserialize(self, data: bytes) -> bytes:
        return data

    def _score(self, requests: list) -> list[dict]:
        scores = model.run(np.stack([model.decode(jpeg) for jpeg in requests]))
        return [{"predictions": row.tolist()} for row in scores]


class RawScorer(JpegScorer):
    """Bodies are a row's numbers."""

    def _score(self, requests: list) -> list[dict]:
        scores = model.run(np.stack([model.from_bytes(body) for body in requests]))
        return [{"predictions": row.tolist()} for row in scores]


class TunedJsonScorer(JsonScorer):
    """The same with orjson."""

    def deserialize(self, data: bytes):
        return orjson.loads(data)

    def serialize(self, data) -> bytes:
        return orjson.dumps(data)


class TunedJpegScorer(JpegScorer):
    """The same with orjson."""

    def serialize(self, data) -> bytes:
        return orjson.dumps(data)


class TunedRawScorer(RawScorer):
    """The same with orjson."""

    def serialize(self, data) -> bytes:
        return orjson.dumps(data)


WORKERS = {
    ("json", False): JsonScorer,
    ("json", True): TunedJsonScorer,
    ("jpeg", False): JpegScorer,
    ("jpeg", True): TunedJpegScorer,
    ("raw", False): RawScorer,
    ("raw", True): TunedRawScorer,
}

if __name__ == "__main__":
    server = Server()
    worker = WORKERS[model.KIND, model.TUNED]
    server.append_worker(worker, num=1, max_batch_size=model.MAX_BATCH, max_wait_time=model.WAIT_MS)
    server.run()

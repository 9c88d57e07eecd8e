"""BentoML with its adaptive batching; JPEG arrives as the form field `images`, which is its idiom."""

import bentoml
import numpy as np
import PIL.Image

import peer_model as model

SERVICE = {"workers": 1, "traffic": {"timeout": 30}}
if model.QUIET:
    SERVICE["logging"] = {"access": {"enabled": False}}

if model.TAKES_JPEG:

    @bentoml.service(**SERVICE)
    class Scorer:
        @bentoml.api(batchable=True, max_batch_size=model.MAX_BATCH, max_latency_ms=2000)
        def predict(self, images: list[PIL.Image.Image]) -> np.ndarray:
            return model.run(np.stack([model.to_row(image) for image in images]))

else:

    @bentoml.service(**SERVICE)
    class Scorer:
        @bentoml.api(batchable=True, max_batch_size=model.MAX_BATCH, max_latency_ms=1000)
        def predict(self, instances: np.ndarray) -> np.ndarray:
            return model.run(instances.astype(np.float32))

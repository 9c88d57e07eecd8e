"""MLServer runtime with its adaptive batching (settings: mlserver_model/model-settings.json)."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

import peer_model as model


class Scorer(MLModel):
    async def load(self) -> bool:
        model.session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        scores = NumpyCodec.encode_output("y", model.run(rows))
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[scores])

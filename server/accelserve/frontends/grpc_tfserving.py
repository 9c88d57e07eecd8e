"""TF Serving's PredictionService and ModelService (specs/tfserving.md section 1), under upstream's method paths."""

import re
from dataclasses import dataclass, replace

from accelserve.codecs.tfserving_proto import (
    decode_metadata_call,
    decode_predict,
    decode_status_call,
    encode_metadata,
    encode_predict,
    encode_status,
)
from accelserve.frontends.grpc_calls import GrpcCall, GrpcCalls
from accelserve.frontends.grpc_core import Handlers
from accelserve.frontends.offload import LARGE_COPY_BYTES, Offload, encoding_bytes
from accelserve.frontends.pictures import PictureDecoder
from accelserve.messages import ModelRef, ScoreRequest, ScoreResponse
from accelserve.models.manager import ModelManager
from accelserve.observability.metrics import RequestRecord
from accelserve.scoring import Scorer

PREDICTION_SERVICE = "tensorflow.serving.PredictionService"
MODEL_SERVICE = "tensorflow.serving.ModelService"
# The accel clients name their service here and no model in the request (specs/azure_scoring.md 0, fact 1).
_ROUTE_HEADER = "x-ms-aml-grpc-service-route"
_ROUTE = re.compile(r"/api/v1/service/([^/]+)/?")


@dataclass(frozen=True, slots=True)
class TfServingGrpc:
    """The methods, from bytes to bytes."""

    scorer: Scorer
    models: ModelManager
    pictures: PictureDecoder
    offload: Offload

    def handlers(self, calls: GrpcCalls) -> Handlers:
        return {
            f"/{PREDICTION_SERVICE}/Predict": calls.counted(self.predict),
            f"/{PREDICTION_SERVICE}/GetModelMetadata": calls.plain(self.get_model_metadata),
            f"/{MODEL_SERVICE}/GetModelStatus": calls.plain(self.get_model_status),
        }

    async def predict(self, data: bytes, call: GrpcCall, record: RequestRecord) -> tuple[bytes, ScoreResponse]:
        started_ns = call.now_ns()
        small = len(data) <= LARGE_COPY_BYTES
        asked = decode_predict(data) if small else await self.offload.run(decode_predict, data)
        servable = self.scorer.resolve(_routed(asked.model, call))
        record.model, record.version = servable.name, str(servable.version)
        signature = servable.signature(asked.signature)
        deadline_ns, priority = call.deadline_ns(), call.priority()
        inputs, pixels = dict(asked.inputs), False
        if servable.model.preprocessing:
            self.scorer.check(servable, deadline_ns, priority)
            inputs, pixels = await self.pictures.into_inputs(servable, signature, inputs, deadline_ns)
        record.decode_ns = call.now_ns() - started_ns
        request = ScoreRequest(inputs, asked.output_filter, deadline_ns, priority, pixels)
        response = await self.scorer.score(servable, signature, request)
        if encoding_bytes(response.outputs) <= LARGE_COPY_BYTES:
            return encode_predict(response), response
        return await self.offload.run(encode_predict, response), response

    def get_model_metadata(self, data: bytes) -> bytes:
        servable = self.scorer.resolve(decode_metadata_call(data).model)
        return encode_metadata(servable.name, servable.version, servable.signatures)

    def get_model_status(self, data: bytes) -> bytes:
        # TF Serving ignores a label here (specs/tfserving.md 1.3).
        return encode_status(self.models.statuses(replace(decode_status_call(data), label=None)))


def _routed(model: ModelRef, call: GrpcCall) -> ModelRef:
    if model.name:
        return model
    found = _ROUTE.fullmatch(call.metadata.get(_ROUTE_HEADER, ""))
    return replace(model, name=found[1]) if found else model

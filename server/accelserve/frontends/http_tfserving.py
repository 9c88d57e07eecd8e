"""TF Serving's REST API, version 1 (specs/tfserving.md section 2): predict, status, metadata, and a list of models."""

import re
from dataclasses import dataclass
from typing import TypeAlias

import orjson

from accelserve.codecs.tfserving_json import (
    bind_predict,
    encode_metadata,
    encode_predict,
    encode_status,
    parse_predict,
)
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_coding import unpacked
from accelserve.frontends.http_exchange import Answer, HttpExchange, priority
from accelserve.frontends.http_messages import HttpRequest, HttpResponse, error_response
from accelserve.frontends.offload import LARGE_BYTES, Offload, encoding_bytes
from accelserve.frontends.pictures import PictureDecoder
from accelserve.messages import ModelRef, ScoreRequest
from accelserve.models.manager import ModelManager
from accelserve.models.servable import Servable
from accelserve.observability.metrics import RequestRecord
from accelserve.scoring import Scorer
from accelserve.tensors import DEFAULT_SIGNATURE, Signature, Tensor

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_MODEL + r":predict", re.IGNORECASE)
_LATER = re.compile(_MODEL + r":(?P<verb>classify|regress)", re.IGNORECASE)
_STATUS = re.compile(_MODEL, re.IGNORECASE)
_METADATA = re.compile(_MODEL + r"/metadata", re.IGNORECASE)
_LIST = re.compile(r"/v1/models/?", re.IGNORECASE)
_INT64_MAX = 2**63 - 1
_INT64_DIGITS = 19

# The model, its signature, the inputs, the outputs that are wanted, and whether they are wanted in rows.
_Read: TypeAlias = tuple[Servable, Signature, dict[str, Tensor], tuple[str, ...], bool]


@dataclass(frozen=True, slots=True)
class TfServingRest:
    """Handler of everything under /v1/."""

    scorer: Scorer
    models: ModelManager
    pictures: PictureDecoder
    exchange: HttpExchange
    offload: Offload
    max_body_bytes: int

    async def handle(self, request: HttpRequest) -> HttpResponse:
        if request.method == "POST" and (_PREDICT.fullmatch(request.path) or _LATER.fullmatch(request.path)):
            return await self.exchange.run(request, self._predict)
        try:
            return HttpResponse(200, self._about(request))
        except ScoringError as error:
            return error_response(error)

    def _about(self, request: HttpRequest) -> bytes:
        """Status, metadata or the list; the texts are TF Serving's."""
        if request.method == "GET" and _LIST.fullmatch(request.path):
            return self._list()
        if request.method == "GET" and (found := _STATUS.fullmatch(request.path)):
            return encode_status(self.models.statuses(_ref(found)))
        if request.method == "GET" and (found := _METADATA.fullmatch(request.path)):
            servable = self.scorer.resolve(_ref(found))
            return encode_metadata(servable.name, servable.version, servable.signatures)
        # 400, not 405: TF Serving's own answer on its paths (specs/tfserving.md fact 8).
        raise ScoringError(Kind.MALFORMED, f"Malformed request: {request.method} {request.path}")

    def _list(self) -> bytes:
        """Not in TF Serving (asked for in its issue 795): every configured model and the states of its versions."""
        models = [
            {"name": name, **orjson.loads(encode_status(self.models.statuses(ModelRef(name))))}
            for name in self.models.names()
        ]
        return orjson.dumps({"models": models})

    async def _predict(self, request: HttpRequest, record: RequestRecord) -> Answer:
        found = _PREDICT.fullmatch(request.path)
        if found is None:
            message = f"{request.path}: classify and regress are not served; ask :predict with the same signature_name"
            raise ScoringError(Kind.UNSUPPORTED, message)
        deadline_ns, urgency = self.exchange.deadline_ns(request.headers), priority(request.headers)
        started_ns = self.exchange.now_ns()
        body = request.body
        if "content-encoding" in request.headers:
            body = await unpacked(request, self.offload, self.max_body_bytes)
        found_model = self._model(found, record)
        if len(body) <= LARGE_BYTES:
            read = _read(body, found_model)
        else:
            read = await self.offload.run(_read, body, found_model)
        servable, signature, inputs, output_filter, row_format = read
        inputs, pixels = await self.pictures.into_inputs(servable, signature, inputs, deadline_ns)
        record.decode_ns = self.exchange.now_ns() - started_ns
        response = await self.scorer.score(
            servable, signature, ScoreRequest(inputs, output_filter, deadline_ns, urgency, pixels)
        )
        if encoding_bytes(response.outputs) <= LARGE_BYTES:
            return Answer(encode_predict(response.outputs, row_format), response)
        return Answer(await self.offload.run(encode_predict, response.outputs, row_format), response)

    def _model(self, found: re.Match[str], record: RequestRecord) -> Servable | ScoringError:
        """The model, or why there is none, which is told once the body is found to be in order."""
        try:
            servable = self.scorer.resolve(_ref(found))
        except ScoringError as error:
            return error
        record.model, record.version = servable.name, str(servable.version)
        return servable


def _read(body: bytes, model: Servable | ScoringError) -> _Read:
    """All that a body says, checked in TF Serving's order; nothing is kept of the document."""
    parsed = parse_predict(body)
    if isinstance(model, ScoringError):
        raise model
    signature = _signature(model, parsed.signature)
    return model, signature, bind_predict(parsed, signature), parsed.output_filter, parsed.row_format


def _signature(servable: Servable, name: str) -> Signature:
    try:
        return servable.signature(name)
    except ScoringError as error:
        # REST says it in other words than gRPC (specs/tfserving.md 2.2).
        wanted = name or DEFAULT_SIGNATURE
        raise ScoringError(Kind.INVALID, f'Serving signature name: "{wanted}" not found in signature def') from error


def _ref(found: re.Match[str]) -> ModelRef:
    version, label = found["version"], found["label"]
    # Python refuses to read numbers of thousands of digits.
    if version is not None and (len(version.lstrip("0")) > _INT64_DIGITS or int(version[-_INT64_DIGITS:]) > _INT64_MAX):
        raise ScoringError(Kind.INVALID, f"Failed to convert version: {version} to numeric.")
    return ModelRef(found["name"], int(version[-_INT64_DIGITS:]) if version is not None else None, label)

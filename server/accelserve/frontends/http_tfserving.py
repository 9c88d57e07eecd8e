"""TF Serving's REST API, version 1 (specs/tfserving.md section 2): predict, status, metadata, and a list of models."""

import re
from collections.abc import Container, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from accelserve.codecs.tfserving_json import (
    encode_metadata,
    encode_predict,
    encode_status,
    encode_together,
    read_predict,
    read_together,
)
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_coding import unpacked
from accelserve.frontends.http_convoy import Outcome
from accelserve.frontends.http_exchange import Answer, HttpExchange, asked_of
from accelserve.frontends.http_messages import Head, HttpRequest, HttpResponse, error_response
from accelserve.frontends.offload import LARGE_BYTES, Offload, encoding_bytes
from accelserve.frontends.pictures import PictureDecoder
from accelserve.messages import ModelRef, ScoreRequest, ScoreResponse
from accelserve.models.manager import ModelManager
from accelserve.models.servable import Servable
from accelserve.observability.metrics import RequestRecord, TogetherRecord
from accelserve.scoring import Scorer
from accelserve.tensors import DEFAULT_SIGNATURE, Signature, Tensor

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PREDICT = re.compile(_MODEL + r":predict", re.IGNORECASE)
_LATER = re.compile(_MODEL + r":(?P<verb>classify|regress)", re.IGNORECASE)
_STATUS = re.compile(_MODEL, re.IGNORECASE)
_METADATA = re.compile(_MODEL + r"/metadata", re.IGNORECASE)
_LIST = re.compile(r"/v1/models/?", re.IGNORECASE)
# Of lighter models the rows of a client who leaves may be computed for nobody: it costs less than asking.
_LIGHT_ROW_NS = 100_000
# Read together, on the loop, 32 bodies of 16 KB hold it for about 1 ms; one by one in the same turn, for about 2.
_MOST_BYTES_TOGETHER = 2**22
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

    def predict(self, request: HttpRequest, record: RequestRecord | None = None) -> Coroutine[Any, Any, HttpResponse]:
        """Of a head that `scores`. record: where the request has been counted."""
        return self.exchange.run(request, self._predict, record)

    def predict_together(
        self, requests: Sequence[HttpRequest], present: Sequence[bool]
    ) -> Coroutine[Any, Any, Outcome]:
        """Of heads that `scores`, which say the same but for the length of the body."""
        return self.exchange.run_together(requests, present, self._predict_together)

    async def handle(self, request: HttpRequest) -> HttpResponse:
        if scores(request.head):
            return await self.predict(request)
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
        head, body = request
        ref, (wait_ns, urgency) = head.read(_ref_asked), head.read(asked_of)
        started_ns = self.exchange.now_ns()
        deadline_ns = None if wait_ns is None else record.started_ns + wait_ns
        if "content-encoding" in head.headers:
            body = await unpacked(request, self.offload, self.max_body_bytes)
        found = self._model(ref, record)
        if len(body) <= LARGE_BYTES:
            read = _read(body, found)
        else:
            read = await self.offload.run(_read, body, found)
        servable, signature, inputs, output_filter, row_format = read
        pixels = False
        if servable.model.preprocessing:
            self.scorer.check(servable, deadline_ns, urgency)
            inputs, pixels = await self.pictures.into_inputs(servable, signature, inputs, deadline_ns)
        record.decode_ns = self.exchange.now_ns() - started_ns
        score = ScoreRequest(inputs, output_filter, deadline_ns, urgency, pixels)
        response = await self.scorer.score(servable, signature, score)
        if encoding_bytes(response.outputs) <= LARGE_BYTES:
            return Answer(encode_predict(response.outputs, row_format), response)
        return Answer(await self.offload.run(encode_predict, response.outputs, row_format), response)

    async def _predict_together(
        self, requests: Sequence[HttpRequest], record: TogetherRecord
    ) -> tuple[Sequence[bytes], ScoreResponse] | None:
        head = requests[0].head
        ref, (wait_ns, urgency) = head.read(_ref_asked), head.read(asked_of)
        started_ns = self.exchange.now_ns()
        if isinstance(ref, str) or "content-encoding" in head.headers:
            return None
        sizes = [len(request.body) for request in requests]
        if max(sizes) > LARGE_BYTES or sum(sizes) > _MOST_BYTES_TOGETHER:
            return None
        servable = self.scorer.resolve(ref)
        signature = servable.signature("")
        row_ns = servable.binder(signature).row_ns
        if not signature.batched or servable.model.preprocessing or row_ns is None or row_ns > _LIGHT_ROW_NS:
            return None
        read = read_together([request.body for request in requests], signature)
        if read is None:
            return None
        inputs, counts = read
        record.model, record.version = servable.name, str(servable.version)
        record.decode_ns = self.exchange.now_ns() - started_ns
        deadline_ns = None if wait_ns is None else record.started_ns + wait_ns
        response = await self.scorer.score(servable, signature, ScoreRequest(inputs, (), deadline_ns, urgency))
        rows, outputs = sum(counts), response.outputs
        if encoding_bytes(outputs) > LARGE_BYTES or any(not t.ndim or len(t) != rows for t in outputs.values()):
            return None
        return encode_together(outputs, counts), response

    def _model(self, ref: ModelRef | str, record: RequestRecord) -> Servable | ScoringError:
        """The model, or why there is none, which is told once the body is found to be in order."""
        if isinstance(ref, str):
            return ScoringError(Kind.INVALID, ref)
        try:
            servable = self.scorer.resolve(ref)
        except ScoringError as error:
            return error
        record.model, record.version = servable.name, str(servable.version)
        return servable


def scores(head: Head) -> bool:
    """Whether it is a scoring request, one for the books."""
    return head.method == "POST" and bool(_PREDICT.fullmatch(head.path) or _LATER.fullmatch(head.path))


def _ref_asked(head: Head) -> ModelRef | str:
    """Which model a path means, or what is wrong with it: an error that is kept would keep what it was raised through.

    Raises ScoringError(UNSUPPORTED).
    """
    found = _PREDICT.fullmatch(head.path)
    if found is None:
        message = f"{head.path}: classify and regress are not served; ask :predict with the same signature_name"
        raise ScoringError(Kind.UNSUPPORTED, message)
    try:
        return _ref(found)
    except ScoringError as error:
        return error.message


def _read(body: bytes, model: Servable | ScoringError) -> _Read:
    """All that a body says, checked in TF Serving's order; nothing is kept of the document."""

    def called(name: str) -> Signature:
        if isinstance(model, ScoringError):
            raise model
        return _signature(model, name)

    pictures: Container[str] = () if isinstance(model, ScoringError) else model.model.preprocessing
    signature, inputs, output_filter, row_format = read_predict(body, called, pictures)
    assert not isinstance(model, ScoringError)
    return model, signature, inputs, output_filter, row_format


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

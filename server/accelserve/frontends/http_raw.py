"""Raw HTTP scoring: POST /score and /api/v1/service/NAME/score. The body's bytes say what they are."""

import re
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from accelserve.codecs.bodies import body_format, decode_npy, decode_octets, single_file
from accelserve.codecs.scoring_json import encode_scores, encode_top, parse_scoring, top_output
from accelserve.codecs.tfserving_json import bind_predict
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_coding import unpacked
from accelserve.frontends.http_exchange import Answer, HttpExchange, asked_of
from accelserve.frontends.http_messages import Head, HttpRequest, HttpResponse
from accelserve.frontends.offload import LARGE_BYTES, LARGE_COPY_BYTES, Offload, encoding_bytes
from accelserve.frontends.pictures import PictureDecoder
from accelserve.messages import ModelRef, ScoreRequest
from accelserve.models.servable import Servable
from accelserve.observability.metrics import RequestRecord
from accelserve.scoring import Scorer
from accelserve.tensors import Signature, Tensor, TensorSpec

_SERVICE = re.compile(r"/api/v1/service/([^/]+)/score")
_PICTURES = ("jpeg", "png")
_NOT_JSON = (*_PICTURES, "npy", "gzip")
_LARGE_RANKED_BYTES = LARGE_BYTES // 8  # an object for each number costs more than its digits


@dataclass(frozen=True, slots=True)
class Decoded:
    """single: one row came without a batch axis, and its answer goes without one. pixels: as `ScoreRequest.pixels`."""

    inputs: dict[str, Tensor]
    single: bool
    pixels: bool = False


class RawScoring:
    """Handler of the raw scoring routes."""

    def __init__(
        self,
        scorer: Scorer,
        pictures: PictureDecoder,
        exchange: HttpExchange,
        offload: Offload,
        max_body_bytes: int,
    ) -> None:
        self._scorer = scorer
        self._pictures = pictures
        self._exchange = exchange
        self._offload = offload
        self._max_body_bytes = max_body_bytes

    def handle(self, request: HttpRequest, record: RequestRecord | None = None) -> Coroutine[Any, Any, HttpResponse]:
        posted = request.head.method == "POST"
        return self._exchange.run(request, self._score if posted else self._wrong_method, record)

    async def _wrong_method(self, request: HttpRequest, record: RequestRecord) -> Answer:
        raise ScoringError(Kind.METHOD, f"{request.method} {request.path}: scoring takes POST, with the bytes to score")

    async def _score(self, request: HttpRequest, record: RequestRecord) -> Answer:
        head = request.head
        servable = self._scorer.resolve(head.read(_model_of))
        record.model, record.version = servable.name, str(servable.version)
        (wait_ns, urgency), top = head.read(asked_of), head.read(_top_of)
        signature = servable.signature("")
        started_ns = self._exchange.now_ns()
        deadline_ns = None if wait_ns is None else record.started_ns + wait_ns
        if signature.name in servable.model.preprocessing:
            self._scorer.check(servable, deadline_ns, urgency)
        decoded = await self._decode(request, servable, signature, deadline_ns)
        record.decode_ns = self._exchange.now_ns() - started_ns
        score = ScoreRequest(decoded.inputs, (), deadline_ns, urgency, decoded.pixels)
        response = await self._scorer.score(servable, signature, score)
        answer = (response.outputs, top, servable.model.labels, decoded.single)
        if encoding_bytes(response.outputs) <= (LARGE_BYTES if top is None else _LARGE_RANKED_BYTES):
            return Answer(_encode(*answer), response)
        return Answer(await self._offload.run(_encode, *answer), response)

    async def _decode(
        self, request: HttpRequest, servable: Servable, signature: Signature, deadline_ns: int | None
    ) -> Decoded:
        body = request.body
        if "content-encoding" in request.headers:
            body = await unpacked(request, self._offload, self._max_body_bytes)
        content_type = request.headers.get("content-type", "").lower()
        if content_type.startswith("multipart/form-data"):
            sent = (body, request.headers["content-type"])
            body = single_file(*sent) if len(body) <= LARGE_COPY_BYTES else await self._offload.run(single_file, *sent)
            content_type = ""
        if not body:
            raise ScoringError(Kind.INVALID, f"the body is empty; {_wanted(servable, signature)}")
        form, octets = body_format(body), content_type.startswith("application/octet-stream")
        if signature.name in servable.model.preprocessing and _is_picture(form, octets, signature):
            row = await self._pictures.rows(servable, signature, [body], deadline_ns)
            return Decoded({next(iter(signature.inputs)): row.tensor}, single=True, pixels=row.pixels)
        if len(body) <= (LARGE_BYTES if form == "json" else LARGE_COPY_BYTES):
            decoded = self._tensors(body, form, octets, servable, signature)
        else:
            decoded = await self._offload.run(self._tensors, body, form, octets, servable, signature)
        inputs, pixels = await self._pictures.into_inputs(servable, signature, decoded.inputs, deadline_ns)
        return Decoded(inputs, decoded.single, pixels)

    def _tensors(self, body: bytes, form: str, octets: bool, servable: Servable, signature: Signature) -> Decoded:
        """What is no picture to decode. octets: the client says that it is bare bytes."""
        if len(signature.inputs) != 1:
            if form in _NOT_JSON:
                raise _does_not_fit(form, servable, signature)
            return _decode_json(body, servable, signature)
        spec = next(iter(signature.inputs.values()))
        if form == "json" and not (octets and not spec.dtype.is_string):
            return _decode_json(body, servable, signature)
        if spec.dtype.is_string:
            return Decoded({spec.name: _one_string(spec, body)}, single=True)
        if form == "npy":
            return _with_batch_axis(spec, decode_npy(body, self._max_body_bytes))
        if form in _PICTURES:
            raise _does_not_fit(form, servable, signature)
        return Decoded({spec.name: decode_octets(body, spec)}, single=False)


def _is_picture(form: str, octets: bool, signature: Signature) -> bool:
    """Whether a body is for the picture decoder, of a model that has one: a picture, or bytes not said to be bare.

    Where the model itself takes strings, all that is not JSON is one, and the decoder tells what is no picture.
    """
    if len(signature.inputs) != 1:
        return False
    if next(iter(signature.inputs.values())).dtype.is_string:
        return form != "json"
    return form in _PICTURES or (form not in ("json", "npy") and not octets)


def _decode_json(body: bytes, servable: Servable, signature: Signature) -> Decoded:
    pictures = signature.name in servable.model.preprocessing
    return Decoded(bind_predict(parse_scoring(body), signature, pictures=pictures), single=False)


def _encode(outputs: Mapping[str, Tensor], top: int | None, labels: Sequence[str] | None, single: bool) -> bytes:
    if top is None:
        return encode_scores(outputs, single=single)
    return encode_top(top_output(outputs), top, labels, single=single)


def scores(head: Head) -> bool:
    """Whether it is for raw scoring: /score or /api/v1/service/NAME/score."""
    return head.path == "/score" or _SERVICE.fullmatch(head.path) is not None


def _model_of(head: Head) -> ModelRef:
    service = _SERVICE.match(head.path)  # the path fits a route, which a newline at its end may follow
    return ModelRef(service[1] if service else head.query.get("model", ""))


def _top_of(head: Head) -> int | None:
    text = head.query.get("top")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) > 0):
        raise ScoringError(Kind.INVALID, f"top: want a whole number above 0, got {text[:32]!r}")
    return int(text)


def _one_string(spec: TensorSpec, body: bytes) -> Tensor:
    tensor = np.empty(() if spec.shape == () else (1,), dtype=object)
    tensor[...] = body
    return tensor


def _with_batch_axis(spec: TensorSpec, tensor: Tensor) -> Decoded:
    """A row without its batch axis gets one."""
    lacks_axis = spec.has_batch_axis and spec.shape is not None and tensor.ndim == len(spec.shape) - 1
    return Decoded({spec.name: tensor[None] if lacks_axis else tensor}, single=lacks_axis)


def _does_not_fit(form: str, servable: Servable, signature: Signature) -> ScoringError:
    message = f"the body is a {form.upper()}, and {_wanted(servable, signature)}"
    return ScoringError(Kind.UNSUPPORTED_MEDIA, message)


def _wanted(servable: Servable, signature: Signature) -> str:
    inputs = ", ".join(f'"{name}" {spec}' for name, spec in signature.inputs.items())
    forms = "JSON, .npy or raw little-endian bytes" if len(signature.inputs) == 1 else "JSON"
    if signature.name in servable.model.preprocessing:
        forms = f"a JPEG, a PNG, {forms}"
    return f"model {servable.name}:{servable.version} takes {inputs} as {forms}"

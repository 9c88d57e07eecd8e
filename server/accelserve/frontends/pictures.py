"""Pictures to rows on a small pool: the decoders release the GIL, so the event loop goes on answering.

The pool is a queue before the models' queues, so it is bounded as they are, and it drops whom nobody waits for.
"""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from accelserve.clock import Clock
from accelserve.codecs.images import decode_picture
from accelserve.codecs.jpeg import JpegDecoder, decode_jpeg
from accelserve.codecs.jpeg_on_gpu import GpuJpegDecoder
from accelserve.errors import Kind, ScoringError
from accelserve.models.servable import Servable
from accelserve.observability.metrics import Gauge
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import DType, Signature, Tensor, find_spec


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """max_pixels: of one picture. most_pictures, most_bytes: of all requests together, encoded, waiting or at work."""

    max_pixels: int
    most_pictures: int = 1024
    most_bytes: int = 256 * 2**20


@dataclass(frozen=True, slots=True)
class _Order:
    """One request's pictures, worked on by several threads. stopped: nobody waits for the rest."""

    preprocessing: Preprocessing
    dtype: DType
    deadline_ns: int | None
    stopped: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True, slots=True)
class Rows:
    """Decoded pictures. pixels: they run under a signature of their own, as `ScoreRequest.pixels`."""

    tensor: Tensor
    pixels: bool


@dataclass(frozen=True, slots=True)
class _Form:
    """What the host makes of pictures. pixels: they run under a signature of their own."""

    preprocessing: Preprocessing
    dtype: DType
    pixels: bool


class PictureDecoder:
    """The decode pool; `waiting` tells how many pictures it has accepted and not finished."""

    def __init__(
        self, threads: int, limits: DecodeLimits, clock: Clock, decode_jpeg: JpegDecoder = decode_jpeg
    ) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="accelserve-decode")
        self._threads = threads
        self._limits = limits
        self._clock = clock
        self._decode_jpeg = decode_jpeg
        self.waiting = 0
        self._waiting_bytes = 0

    async def decode(
        self, pictures: Sequence[bytes], preprocessing: Preprocessing, dtype: DType, deadline_ns: int | None = None
    ) -> Tensor:
        """Encoded pictures -> [n, H, W, C] or [n, C, H, W].

        Raises ScoringError: of a picture that does not decode, OVERLOADED (reason "decode_queue_full"), DEADLINE.
        """
        nbytes = sum(map(len, pictures))
        self._admit(len(pictures), nbytes)
        order = _Order(preprocessing, dtype, deadline_ns)
        loop = asyncio.get_running_loop()
        try:
            jobs = [loop.run_in_executor(self._pool, self._rows, part, order) for part in self._parts(pictures)]
            rows = await asyncio.gather(*jobs)
        finally:
            order.stopped.set()
            self.waiting -= len(pictures)
            self._waiting_bytes -= nbytes
        return rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _admit(self, count: int, nbytes: int) -> None:
        """What is alone is always accepted: no request is refused for its size alone."""
        limits = self._limits
        full = self.waiting + count > limits.most_pictures or self._waiting_bytes + nbytes > limits.most_bytes
        if full and self.waiting:
            message = f"{self.waiting} pictures ({self._waiting_bytes} bytes) wait to be decoded; try again later"
            raise ScoringError(Kind.OVERLOADED, message, reason="decode_queue_full", retry_after_s=1)
        self.waiting += count
        self._waiting_bytes += nbytes

    def _parts(self, pictures: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """At most one part for each thread, in order."""
        size = -(-len(pictures) // self._threads)
        return (pictures[at : at + size] for at in range(0, len(pictures), size))

    def _rows(self, pictures: Sequence[bytes], order: _Order) -> Tensor:
        rows = [self._row(data, order) for data in pictures]
        return rows[0][None] if len(rows) == 1 else np.stack(rows)

    def _row(self, data: bytes, order: _Order) -> Tensor:
        if order.stopped.is_set():
            raise ScoringError(Kind.CANCELLED, "nobody waits for this picture any more")
        if order.deadline_ns is not None and self._clock.now_ns() >= order.deadline_ns:
            raise ScoringError(Kind.DEADLINE, "the deadline passed before the picture was decoded")
        most = self._limits.max_pixels
        return decode_picture(data, order.preprocessing, most, dtype=order.dtype, decode_jpeg=self._decode_jpeg)

    async def rows(
        self, servable: Servable, signature: Signature, pictures: Sequence[bytes], deadline_ns: int | None
    ) -> Rows:
        """Decode pictures for a signature that the model has preprocessing for. Raises as `decode`."""
        form = _form_of(servable, signature)
        return Rows(await self.decode(pictures, form.preprocessing, form.dtype, deadline_ns), form.pixels)

    async def into_inputs(
        self, servable: Servable, signature: Signature, inputs: dict[str, Tensor], deadline_ns: int | None
    ) -> tuple[dict[str, Tensor], bool]:
        """Decode what arrived as a string tensor [n] for a model whose pictures we decode; else inputs as they are.

        Clients of the original services send `DT_STRING [n]` whatever the model's own input is, and decoded pictures to
        models of strings. Returns the inputs, and whether they run under a signature of their own.
        """
        if signature.name not in servable.model.preprocessing or len(inputs) != 1:
            return inputs, False
        name, tensor = next(iter(inputs.items()))
        if tensor.dtype != np.object_:
            decoded = servable.model.pixels.decoded.get(signature.name)
            return inputs, decoded is not None and decoded.only
        if find_spec(signature.inputs, name) is None:
            return inputs, False  # to be refused for its name before it costs anything
        if tensor.ndim > 1 or tensor.size == 0:
            message = f'"{name}": encoded pictures come as string[n] with n above 0, got {list(tensor.shape)}'
            raise ScoringError(Kind.INVALID, message)
        _check_room(name, tensor.size, _form_of(servable, signature), servable.model.policy.max_queue_bytes)
        rows = await self.rows(servable, signature, tensor.reshape(-1).tolist(), deadline_ns)
        return {name: rows.tensor}, rows.pixels

    def gauges(self) -> Iterator[Gauge]:
        yield Gauge("accelserve_decode_queue_pictures", "Pictures waiting or being decoded.", {}, self.waiting)
        if isinstance(self._decode_jpeg, GpuJpegDecoder):
            yield from self._decode_jpeg.gauges()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _form_of(servable: Servable, signature: Signature) -> _Form:
    path = servable.model.pixels.by_signature.get(signature.name)
    steps = servable.model.preprocessing[signature.name] if path is None else path.preprocessing
    (spec,) = (signature if path is None else path.signature).inputs.values()
    return _Form(steps, spec.dtype, pixels=path is not None)


def _check_room(name: str, count: int, form: _Form, most_bytes: int) -> None:
    """A megabyte of one-byte strings would become gigabytes of rows: look before decoding any."""
    height, width = form.preprocessing.size
    nbytes = count * height * width * form.preprocessing.channels * form.dtype.numpy.itemsize
    if nbytes > most_bytes:
        message = f'"{name}": {count} pictures become {nbytes} bytes of rows, and the queue takes {most_bytes}'
        raise ScoringError(Kind.TOO_LARGE, message)

"""Pictures to rows on a small pool: the decoders release the GIL, so the event loop goes on answering.

The pool is a queue before the models' queues, so it is bounded as they are, and it drops whom nobody waits for.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from accelserve.clock import Clock
from accelserve.codecs.images import decode_picture
from accelserve.codecs.jpeg import JpegDecoder, decode_jpeg
from accelserve.codecs.jpeg_on_gpu import GpuJpegDecoder
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.decode_pool import DecodePool
from accelserve.models.servable import Servable
from accelserve.observability.metrics import Gauge
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import DType, Signature, Tensor, find_spec
from accelserve.ticket import Ticket

_BRIEF_BYTES = 2**15  # encoded: a usual picture then takes 0.3 ms, a PNG of nothing but black, the worst, 0.2 s


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """max_pixels: of one picture. most_pictures, most_bytes: of all requests together, encoded, waiting or at work."""

    max_pixels: int
    most_pictures: int = 1024
    most_bytes: int = 256 * 2**20


class _Order(Ticket[Tensor]):
    """One request's pictures, of which several threads may each have a part, and the ticket for its rows.

    stopped: nobody waits for the rest. left: parts without an outcome. rows: where several pictures go, [n, *row].
    """

    __slots__ = ("deadline_ns", "dtype", "left", "preprocessing", "rows", "stopped")

    def __init__(self, preprocessing: Preprocessing, dtype: DType, deadline_ns: int | None) -> None:
        super().__init__(asyncio.get_running_loop())
        self.preprocessing = preprocessing
        self.dtype = dtype
        self.deadline_ns = deadline_ns
        self.left = 0
        self.stopped = False
        self.rows: Tensor | None = None

    def part_done(self, outcome: Tensor | ScoringError) -> None:
        """The first error at once, else the rows with the last part."""
        self.left -= 1
        if self.done():
            return
        if isinstance(outcome, ScoringError):
            self.stopped = True
            self.fail(outcome)
        elif not self.left:
            self.settle(outcome)


class _Part:
    """Pictures of an order, from `first` on: a job of the pool. outcome: the order's rows, or what went wrong."""

    __slots__ = ("brief", "decode", "first", "order", "outcome", "pictures")

    def __init__(
        self, decode: Callable[[bytes, _Order], Tensor], order: _Order, first: int, pictures: Sequence[bytes]
    ) -> None:
        self.decode = decode
        self.order = order
        self.first = first
        self.pictures = pictures
        self.brief = len(pictures) == 1 and len(pictures[0]) <= _BRIEF_BYTES
        self.outcome: Tensor | ScoringError

    def work(self) -> None:
        try:
            self.outcome = self._rows()
        except ScoringError as error:
            # The client's fault has no use for frames that hold the picture; of ours the log wants to know where from.
            self.outcome = error if error.kind is Kind.INTERNAL else error.with_traceback(None)
        except BaseException as error:  # StopIteration or SystemExit would end more than this request
            self.outcome = ScoringError(Kind.INTERNAL, f"the decoder failed: unforeseen {type(error).__name__}")
            self.outcome.__cause__ = error

    def _rows(self) -> Tensor:
        order, rows = self.order, self.order.rows
        if rows is None:
            return self.decode(self.pictures[0], order)[None]
        for index, data in enumerate(self.pictures, self.first):
            rows[index] = self.decode(data, order)
        return rows

    def settle(self) -> None:
        self.order.part_done(self.outcome)

    def drop(self) -> None:
        self.order.part_done(ScoringError(Kind.DRAINING, "the server stopped before the picture was decoded"))


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
        self,
        threads: int,
        limits: DecodeLimits,
        clock: Clock,
        decode_jpeg: JpegDecoder = decode_jpeg,
        patience_ns: int = 0,
    ) -> None:
        """patience_ns: as `DecodePool` has it."""
        self._pool = DecodePool(threads, clock, patience_ns)
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
        try:
            self._give(pictures, order)
            return await order
        finally:
            order.stopped = True
            order.cancel()  # a coroutine that was closed, not cancelled, has left it waiting
            self.waiting -= len(pictures)
            self._waiting_bytes -= nbytes
            del order  # else its error, this frame and the pictures hold one another

    def _admit(self, count: int, nbytes: int) -> None:
        """What is alone is always accepted: no request is refused for its size alone."""
        limits = self._limits
        full = self.waiting + count > limits.most_pictures or self._waiting_bytes + nbytes > limits.most_bytes
        if full and self.waiting:
            message = f"{self.waiting} pictures ({self._waiting_bytes} bytes) wait to be decoded; try again later"
            raise ScoringError(Kind.OVERLOADED, message, reason="decode_queue_full", retry_after_s=1)
        self.waiting += count
        self._waiting_bytes += nbytes

    def _give(self, pictures: Sequence[bytes], order: _Order) -> None:
        """At most one part for each thread, in order."""
        if len(pictures) > 1:
            order.rows = np.empty((len(pictures), *order.preprocessing.row_shape), order.dtype.numpy)
        size = -(-len(pictures) // self._threads)
        starts = range(0, len(pictures), size)
        order.left = len(starts)
        for at in starts:
            self._pool.give(_Part(self._row, order, at, pictures[at : at + size]))

    def _row(self, data: bytes, order: _Order) -> Tensor:
        if order.stopped:
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
        Raises ScoringError: INVALID for another shape, TOO_LARGE for more rows than the queue takes, and as `decode`.
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
        self._pool.close()


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

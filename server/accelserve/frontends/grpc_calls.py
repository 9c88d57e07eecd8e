"""One gRPC call from first count to status: errors, ids, deadline, metadata."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc

from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.exchange import note_internal, parse_priority, provenance, time_spent, unforeseen
from accelserve.frontends.grpc_core import CoreCall, Unary
from accelserve.lifecycle import Lifecycle
from accelserve.messages import Priority, ScoreResponse
from accelserve.observability.logs import clean_request_id, new_request_id
from accelserve.observability.metrics import Metrics, RequestRecord

Counted = Callable[[bytes, "GrpcCall", RequestRecord], Awaitable[tuple[bytes, ScoreResponse]]]
Plain = Callable[[bytes], bytes]

_STATUS = {code.value[0]: code for code in grpc.StatusCode}
# TF Serving cuts here. A byte may become three on the wire, and clients refuse more than 8 KiB of trailing metadata.
_MAX_MESSAGE_BYTES = 1024
_DEADLINE_SLACK_S = 0.01  # the caller's clock runs out first, by the way of the request and grpc-timeout's rounding


class GrpcCall:
    """What a call brings along beside its message."""

    __slots__ = ("_clock", "_core", "_new_id", "_request_id", "metadata")

    def __init__(self, core: CoreCall, clock: Clock, new_id: Callable[[], str]) -> None:
        self._core = core
        self._clock = clock
        self._new_id = new_id
        self._request_id = ""
        self.metadata = core.metadata()

    @property
    def request_id(self) -> str:
        """The caller's own, else a new one; most calls end without anybody asking."""
        if not self._request_id:
            self._request_id = clean_request_id(self.metadata.get("x-request-id", "")) or self._new_id()
        return self._request_id

    def now_ns(self) -> int:
        return self._clock.now_ns()

    def deadline_ns(self) -> int | None:
        """The caller's deadline on the server's clock."""
        left_s = self._core.time_left_s()
        return None if left_s is None else self._clock.now_ns() + int(left_s * 1e9)

    def is_over(self) -> bool:
        """Whether the deadline has passed. A caller that gives up at it is heard of up to a moment before."""
        left_s = self._core.time_left_s()
        return left_s is not None and left_s < _DEADLINE_SLACK_S

    def priority(self) -> Priority:
        return parse_priority(self.metadata.get("x-accelserve-priority", "normal"))


class GrpcCalls:
    """Makes gRPC handlers out of functions from bytes to bytes."""

    def __init__(
        self, metrics: Metrics, clock: Clock, lifecycle: Lifecycle, new_id: Callable[[], str] = new_request_id
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._lifecycle = lifecycle
        self._new_id = new_id

    def counted(self, work: Counted) -> Unary:
        """A scoring call: ends in exactly one counter."""

        async def handle(core: CoreCall, data: bytes) -> None:
            with self._metrics.open("grpc") as record:
                call = GrpcCall(core, self._clock, self._new_id)
                record.bytes_in = len(data)
                try:
                    if self._lifecycle.closing:
                        await self._refuse_at_the_end()
                    answer, response = await work(data, call, record)
                except ScoringError as error:
                    _refuse(core, error, call.request_id, record)
                except asyncio.CancelledError:
                    if call.is_over():
                        record.failed(ScoringError(Kind.DEADLINE, "the caller's deadline"), "DEADLINE_EXCEEDED")
                    raise
                except Exception as error:
                    _refuse(core, unforeseen(error, call.request_id), call.request_id, record)
                else:
                    record.bytes_out = len(answer)
                    record.answered(response.timing, "OK")
                    core.answer(answer, _told(response, call, record))

        return Unary(handle)

    def plain(self, work: Plain) -> Unary:
        """A question about models: not a scoring request, so not counted as one."""

        async def handle(core: CoreCall, data: bytes) -> None:
            request_id = self._new_id()
            try:
                core.answer(work(data))
            except ScoringError as error:
                _refuse(core, error, request_id)
            except Exception as error:
                _refuse(core, unforeseen(error, request_id), request_id)

        return Unary(handle)

    def turn_away(self, core: CoreCall, error: ScoringError) -> None:
        """A call that no handler sees is counted all the same."""
        with self._metrics.open("grpc") as record:
            _refuse(core, error, clean_request_id(core.metadata().get("x-request-id", "")) or self._new_id(), record)

    async def _refuse_at_the_end(self) -> None:
        """grpcio cancels what lies before its listener when that closes, and clients do not try such calls again.

        A client that is refused at once calls again at once; so it waits, a tenth of a second, until nothing it sends
        can come to lie there.
        """
        await self._lifecycle.grpc_closed.wait()
        raise ScoringError(Kind.DRAINING, "the server is stopping", retry_after_s=1)


def _told(response: ScoreResponse, call: GrpcCall, record: RequestRecord) -> tuple[tuple[str, str], ...]:
    """Trailing metadata. An entry costs 5 µs, so only where the answer was computed is told to those who do not ask."""
    told = provenance(response)
    if "x-accelserve-timing" in call.metadata:
        told["x-accelserve-timing"] = time_spent(response.timing, record.decode_ns)
    if "x-request-id" in call.metadata:
        told["x-request-id"] = call.request_id
    return tuple(told.items())


def _refuse(core: CoreCall, error: ScoringError, request_id: str, record: RequestRecord | None = None) -> None:
    note_internal(error, request_id)
    code = _STATUS[error.kind.grpc_code]
    if record is not None:
        record.failed(error, code.name)
    metadata = [("x-accelserve-reason", error.reason), ("x-request-id", request_id)]
    if error.retry_after_s is not None:
        metadata.append(("retry-after", str(error.retry_after_s)))
    core.refuse(code, _short(error.message), metadata)


def _short(message: str) -> str:
    data = message.encode(errors="replace")
    if len(data) <= _MAX_MESSAGE_BYTES:
        return data.decode()
    return data[:_MAX_MESSAGE_BYTES].decode(errors="ignore") + "...TRUNCATED"

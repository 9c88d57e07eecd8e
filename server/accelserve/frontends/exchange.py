"""What a scoring request is to every protocol: its priority, what its answer says of its origin, the unforeseen."""

import logging

from accelserve.errors import Kind, ScoringError
from accelserve.messages import Priority, ScoreResponse, Timing

logger = logging.getLogger("accelserve.frontends")

_PRIORITIES = {priority.name.lower(): priority for priority in Priority}


def parse_priority(text: str) -> Priority:
    """The value of `x-accelserve-priority`. Raises ScoringError(INVALID)."""
    priority = _PRIORITIES.get(text.lower())
    if priority is None:
        raise ScoringError(Kind.INVALID, f"x-accelserve-priority: want high, normal or low, got {text[:32]!r}")
    return priority


def provenance(response: ScoreResponse) -> dict[str, str]:
    """Where the answer was computed, honestly; HTTP headers and gRPC trailing metadata."""
    headers = {"x-accelserve-device": f"{response.device}; emulated" if response.emulated else response.device}
    if response.timing.modelled_device_ns is not None:
        headers["x-accelserve-modelled-device-us"] = str(response.timing.modelled_device_ns // 1000)
    return headers


def provenance_lines(response: ScoreResponse) -> str:
    """`provenance` and the model as HTTP header lines."""
    lines = f"x-accelserve-device: {response.device}\r\n"
    if response.emulated or response.timing.modelled_device_ns is not None:
        lines = "".join([f"{name}: {value}\r\n" for name, value in provenance(response).items()])
    return f"{lines}x-accelserve-model: {response.model}:{response.version}\r\n"


def time_spent(timing: Timing, decode_ns: int) -> str:
    """The value of `x-accelserve-timing`: whole µs, and why the request waited for its batch (docs/latency.md)."""
    queue_ns, compute_ns, rows, _, position, closed = timing
    spent = f"queue={queue_ns // 1000}us, decode={decode_ns // 1000}us, compute={compute_ns // 1000}us"
    return f"{spent}, batch={rows}, position={position}, closed={closed}"


class _NotedError(ScoringError):
    """Its origin is in the log already."""


def note_internal(error: ScoringError, request_id: str) -> None:
    """Log an error that is ours or the model's, not the client's, with where it came from."""
    if error.kind is Kind.INTERNAL and not isinstance(error, _NotedError):
        logger.error("%s", error.message, exc_info=error, extra={"request_id": request_id})


def unforeseen(error: Exception, request_id: str) -> ScoringError:
    """For the client a request id; the traceback goes to the log only."""
    logger.error("unforeseen", exc_info=error, extra={"request_id": request_id})
    return _NotedError(Kind.INTERNAL, f"internal error; the server's log has it under request id {request_id}")

"""What a scoring request is to every protocol: its priority, what its answer says of its origin, the unforeseen."""

import logging

from accelserve.errors import Kind, ScoringError
from accelserve.messages import Priority, ScoreResponse

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


def time_spent(response: ScoreResponse, decode_ns: int) -> str:
    """The value of `x-accelserve-timing`, in whole µs."""
    timing = response.timing
    spent = f"queue={timing.queue_ns // 1000}us, decode={decode_ns // 1000}us, compute={timing.compute_ns // 1000}us"
    return f"{spent}, batch={timing.batch_rows}"


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

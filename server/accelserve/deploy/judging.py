"""Whether a replica's process may stay: how long things may take, and how much it may use."""

from accelserve.deploy.processes import Patience, Process

_S = 1_000_000_000
_GB = 10**9


def must_die(process: Process, patience: Patience, now_ns: int) -> str:
    """Why it is killed; "" when it is not."""
    if process.stopping_ns is not None:
        most_s = process.runs.drain_s + patience.ending_s
        late = now_ns - process.stopping_ns >= most_s * _S
        return f"was killed: it did not end within {most_s} s" if late else ""
    if process.ready_ns is None and now_ns - process.started_ns >= patience.start_s * _S:
        return f"was killed: it did not get ready within {patience.start_s} s"
    if process.ready_ns is None and (too_much := _above_limit(process)):
        return f"was killed before it was ready: {too_much}"
    if process.ready_ns is not None and now_ns - process.answered_ns >= patience.answer_s * _S:
        return f"was killed: it did not answer for {patience.answer_s} s"
    return ""


def must_go(process: Process, patience: Patience, now_ns: int) -> str:
    """Why it is drained as soon as another is ready in its place; "" when it is not."""
    if process.stopping_ns is not None or process.ready_ns is None:
        return ""
    if too_much := _above_limit(process):
        return f"is replaced: {too_much}"
    if now_ns - process.ready_until_ns >= patience.unready_s * _S:
        return f"is replaced: it was not ready for {patience.unready_s} s ({process.report.reason})"
    return ""


def _above_limit(process: Process) -> str:
    """How far a process is above its memory; "" when it is not."""
    limit_gb, used = process.runs.memory_gb_limit, process.memory_bytes or 0
    if limit_gb is None or used <= limit_gb * _GB:
        return ""
    return f"it uses {used / _GB:.2f} GB of the {limit_gb:g} GB that it may"

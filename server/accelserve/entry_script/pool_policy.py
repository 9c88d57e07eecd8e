"""How many workers an entry script has, and how long everything may take."""

from dataclasses import dataclass

from accelserve.config import ServerConfig


@dataclass(frozen=True, slots=True)
class PoolPolicy:
    """timeout_ns: of one run. max_wait_ns: of a request for a worker, None for as long as it takes.

    max_concurrent: requests that run or wait, None for max_queue waiting ones. max_queue_bytes: of bodies that wait;
    one always may. start_limit_ns: from a worker's start to its readiness.
    """

    workers: int = 1
    timeout_ns: int = 60 * 10**9
    max_wait_ns: int | None = None
    max_concurrent: int | None = None
    max_queue: int = 1024
    max_queue_bytes: int = 2**30
    start_limit_ns: int = 300 * 10**9


def pool_policy(config: ServerConfig, workers: int, timeout_ms: int) -> PoolPolicy:
    """workers, timeout_ms: by the names of the command that serves the script; all else is in both alike."""
    return PoolPolicy(
        workers=workers,
        timeout_ns=timeout_ms * 10**6,
        max_wait_ns=None if config.max_queue_ms is None else config.max_queue_ms * 10**6,
        max_concurrent=config.max_concurrent,
        start_limit_ns=int(config.script_start_timeout_s * 1e9),
    )

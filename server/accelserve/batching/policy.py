"""How a model's requests are gathered."""

from dataclasses import dataclass

from accelserve.errors import Kind, ScoringError


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Limits and delays of one model's queue.

    max_batch_size: most rows in one run. allowed_batch_sizes: run sizes, ascending, the last equal to
    max_batch_size; a batch is padded up to the next one; empty: any size.
    max_queue_delay_ns: how long the oldest request may wait for company while the session is free; 0, the default,
    is work-conserving: what is there runs at once.
    max_queue_rows, max_queue_bytes: what may wait; more is refused as OVERLOADED.
    latency_slo_ns: the objective for the time to an answer, from which batch sizes and delay follow; None: there is
    none.
    """

    max_batch_size: int = 32
    allowed_batch_sizes: tuple[int, ...] = ()
    max_queue_delay_ns: int = 0
    max_queue_rows: int = 4096
    max_queue_bytes: int = 512 * 2**20
    latency_slo_ns: int | None = None

    def __post_init__(self) -> None:
        positive = {
            "max_batch_size": self.max_batch_size,
            "max_queue_rows": self.max_queue_rows,
            "max_queue_bytes": self.max_queue_bytes,
        }
        for name, value in positive.items():
            if value < 1:
                raise ScoringError(Kind.INVALID, f"{name} must be at least 1, got {value}")
        if self.max_queue_delay_ns < 0:
            got = self.max_queue_delay_ns // 1000
            raise ScoringError(Kind.INVALID, f"max_queue_delay_us must not be negative, got {got}")
        if self.latency_slo_ns is not None and self.latency_slo_ns < 1:
            raise ScoringError(Kind.INVALID, f"latency_slo_ms must be more than 0, got {self.latency_slo_ns / 1e6:g}")
        sizes = self.allowed_batch_sizes
        if sizes and (sizes[0] < 1 or list(sizes) != sorted(set(sizes)) or sizes[-1] != self.max_batch_size):
            wanted = f"ascending, from 1 or more up to max_batch_size ({self.max_batch_size})"
            raise ScoringError(Kind.INVALID, f"allowed_batch_sizes must be {wanted}, got {list(sizes)}")

    def padded_rows(self, rows: int) -> int:
        """Rows that a batch of `rows` runs with: the next allowed size, or `rows` itself."""
        if not self.allowed_batch_sizes:
            return rows
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)

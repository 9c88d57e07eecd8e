"""What came of a file: frozen values."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelserve.errors import ExitCode


@dataclass(frozen=True, slots=True)
class Place:
    """One of the best classes. label: None where nobody names it."""

    index: int
    label: str | None
    score: float


@dataclass(frozen=True, slots=True)
class Spent:
    """Where a request's time went. total_ms is the client's clock, the rest the server's; None where it does not say.

    rows: of the batch in which the server ran it, 0 where it does not say.
    """

    total_ms: float
    queue_ms: float | None = None
    decode_ms: float | None = None
    compute_ms: float | None = None
    rows: int = 0

    @property
    def network_ms(self) -> float | None:
        """All that is not the server's own: the way there and back, and both ends' reading and writing."""
        if self.compute_ms is None:
            return None
        return max(0.0, self.total_ms - (self.queue_ms or 0) - (self.decode_ms or 0) - self.compute_ms)


@dataclass(frozen=True, slots=True)
class Scored:
    """best: the ranked classes, None where the answer is no vector of scores; then `answer` is what came.

    classes: how many there are besides, where labels were given to compare them with and the answer shows it.
    """

    path: Path
    best: tuple[Place, ...] | None
    answer: Any
    spent: Spent
    device: str = ""
    classes: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """status: HTTP's number, gRPC's name, or a word of ours. ends_with: every file would fail so; the exit code then.

    unreached: nobody answered at all.
    """

    path: Path
    status: str
    message: str
    ends_with: ExitCode | None = None
    unreached: bool = False


Outcome = Scored | Failed

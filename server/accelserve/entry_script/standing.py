"""Whether a script's workers can be relied on: what became of each, without processes, sockets or a clock."""

from accelserve.entry_script.messages import WorkerReady
from accelserve.entry_script.restarts import Restarts


class Standing:
    """Of all workers' places, by number.

    first: what the script is, None before a worker has said so. is_down: no worker is there, and those who were died
    again and again.
    """

    def __init__(self, workers: int) -> None:
        self.first: WorkerReady | None = None
        self.is_down = False
        self._places = [Restarts() for _ in range(workers)]
        self._unready = set(range(workers))  # of the first workers

    @property
    def has_begun(self) -> bool:
        """Whether all first workers have been ready."""
        return not self._unready

    def ready(self, number: int, ready: WorkerReady, now_ns: int) -> None:
        self.first = self.first or ready
        self._places[number].ready(now_ns)
        self._unready.discard(number)
        self.is_down = False

    def died(self, number: int, why: str, now_ns: int) -> None:
        """Of one that is to be replaced; `to_start` says when."""
        self._places[number].died(why, now_ns)
        self.is_down = not any(place.has_hope for place in self._places)

    def to_start(self, now_ns: int) -> list[int]:
        """The places whose next worker starts now."""
        due = [number for number, place in enumerate(self._places) if place.is_due(now_ns)]
        for number in due:
            self._places[number].begun()
        return due

    def wake_at_ns(self, now_ns: int) -> int | None:
        """When `to_start` or `is_ready` changes, if nothing else happens."""
        return min([at for place in self._places if (at := place.wake_at_ns(now_ns)) is not None], default=None)

    @property
    def restarts(self) -> int:
        return sum(place.count for place in self._places)

    def is_ready(self, now_ns: int) -> bool:
        """Whether a worker is there that can be expected to stay."""
        return any(place.is_steady(now_ns) for place in self._places)

    def why_not_ready(self, now_ns: int) -> str:
        if self.first is None:
            return "the entry script is being started"
        told = [place.told(now_ns) for place in self._places if place.why]
        return f"the entry script's worker: {told[0]}" if told else ""

    def retry_after_s(self, now_ns: int) -> int:
        """When the next worker starts, for those who are sent away while none is there."""
        return max(1, round(min(place.wait_ns(now_ns) for place in self._places) / 1e9))

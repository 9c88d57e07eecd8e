"""When a version that failed is tried again: a pure state machine, time and chance passed in."""

from dataclasses import dataclass

from accelserve.errors import Kind

# What stands in the way may go by itself: another model is unloaded, another process ends, a driver comes back.
HEALING = frozenset({Kind.DEVICE_MEMORY, Kind.DEVICE_LOST, Kind.CONFLICT})
_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class ReloadPolicy:
    """first_s, most_s: the wait before the first try, doubled for each further one, and its limit.

    attempts: failed reloads after a lost device until the device counts as gone for this process. An error that CUDA
    calls sticky stays until the process ends, so that only a new process can use the device again. 0: no reload.
    """

    first_s: float = 1.0
    most_s: float = 60.0
    attempts: int = 5

    def wait_ns(self, failures: int, chance: float) -> int:
        """failures: so far. chance: from 0 to 1; spreads the tries of many replicas over half of the wait."""
        whole_s = min(self.most_s, self.first_s * 2.0 ** min(failures, 30))
        return int(whole_s * (0.5 + 0.5 * chance) * _S)


class Reload:
    """One version's failures, and the moment of its next try.

    lost: it had a device and lost it, and has not been AVAILABLE since.
    """

    def __init__(self, policy: ReloadPolicy) -> None:
        self._policy = policy
        self._failures = 0
        self._available_ns = 0
        self._reloaded = False
        self.lost = False
        self.at_ns: int | None = None

    @property
    def failures(self) -> int:
        return self._failures

    @property
    def given_up(self) -> bool:
        """The device counts as gone for this process; it is tried on all the same, as long as others are served."""
        return self.lost and self._failures >= self._policy.attempts

    def due(self, now_ns: int) -> bool:
        return self.at_ns is not None and now_ns >= self.at_ns

    def available(self, now_ns: int) -> None:
        """The version serves."""
        self._available_ns, self._reloaded = now_ns, self.lost
        self.lost, self.at_ns = False, None

    def lose(self, now_ns: int, chance: float) -> None:
        """It served, and its device is gone. One that served shorter than the longest wait has not healed."""
        relapse = self._reloaded and now_ns - self._available_ns < self._policy.most_s * _S
        self._failures = self._failures + 1 if relapse else 0
        self.lost = True
        self._schedule(now_ns, chance)

    def fail(self, kind: Kind, now_ns: int, chance: float, may_heal: bool = True) -> None:
        """It did not load. What cannot heal by itself, or may not, waits for other files (`at_ns` None)."""
        self._failures += 1
        self.at_ns = None
        if self.lost or (may_heal and kind in HEALING):
            self._schedule(now_ns, chance)

    def forget(self) -> None:
        """Its files have changed: a new start."""
        self._failures, self.lost, self.at_ns = 0, False, None

    def _schedule(self, now_ns: int, chance: float) -> None:
        if self._policy.attempts or not self.lost:
            self.at_ns = now_ns + self._policy.wait_ns(self._failures, chance)

"""How a replica ended, in words, and when it is started again."""

from dataclasses import dataclass

from accelserve.errors import ExitCode
from accelserve.process_ends import signal_name

_S = 1_000_000_000
_MEANINGS = {
    ExitCode.OK: "it ended by itself",
    ExitCode.UNFORESEEN: "something unforeseen happened",
    ExitCode.USAGE: "its configuration is wrong",
    ExitCode.LOAD_FAILED: "the model or the entry script does not load",
    ExitCode.NOT_FOUND: "something that it needs is not there",
    ExitCode.CONFLICT: "something that it needs is in use",
    ExitCode.DEVICE_MISSING: "a required device is missing",
}
# What trying again does not mend, as long as nothing else changes.
_LASTING = frozenset(ExitCode) - {ExitCode.OK, ExitCode.UNFORESEEN}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a process ended. status: its exit code, or minus the number of the signal that killed it."""

    status: int

    @property
    def is_lasting(self) -> bool:
        """Whether the next try would end alike."""
        return self.status in _LASTING

    @property
    def exit_code(self) -> ExitCode:
        """What a command ends with that has waited for it."""
        return ExitCode(self.status) if self.is_lasting else ExitCode.UNFORESEEN

    def __str__(self) -> str:
        if self.status < 0:
            return f"was killed by {signal_name(-self.status)}"
        meaning = _MEANINGS.get(ExitCode(self.status), "") if self.status in set(ExitCode) else ""
        return f"ended with {self.status}" + (f" ({meaning})" if meaning else "")


@dataclass(frozen=True, slots=True)
class BackOff:
    """At once after a long life; else after 1 s, 2 s, 4 s ... 60 s, counted from the last long life."""

    first_ns: int = _S
    most_ns: int = 60 * _S
    long_life_ns: int = 60 * _S

    def wait_ns(self, failures: int) -> int:
        """failures: short lives in a row, from 0."""
        return min(self.first_ns << min(failures - 1, 32), self.most_ns) if failures else 0

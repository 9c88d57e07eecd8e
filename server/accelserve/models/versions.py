"""Which versions should be there, and what is to be done next for that: pure decisions, time passed in.

The order is that of TF Serving's availability-preserving policy: a new version is loaded while the old one serves, and
the old one goes only when a wanted one is AVAILABLE.
"""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from accelserve.config import VersionPolicy
from accelserve.errors import Kind, ScoringError


class ModelState(Enum):
    """TF Serving's words."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"

    @property
    def settled(self) -> bool:
        return self in (ModelState.AVAILABLE, ModelState.END)

    @property
    def moving(self) -> bool:
        return self in (ModelState.LOADING, ModelState.UNLOADING)


def choose(model: str, policy: VersionPolicy, there: Collection[int]) -> tuple[int, ...]:
    """The wanted ones of the versions that are there, the highest first.

    Raises ScoringError(NOT_FOUND) when the policy names versions and none of them is there.
    """
    ordered = sorted(there, reverse=True)
    if not policy.specific:
        return tuple(ordered[: policy.latest or None])
    chosen = tuple(version for version in ordered if version in policy.specific)
    if not chosen:
        listed = ", ".join(map(str, ordered)) or "none"
        raise ScoringError(Kind.NOT_FOUND, f"model {model!r}: there is no version {policy}; there is: {listed}")
    return chosen


@dataclass(frozen=True, slots=True)
class Candidate:
    """A wanted version as the next load sees it.

    stamp: of its files as last seen, None where they cannot change or nobody looked. tried: the stamp at its last load.
    failed: that load, or the device since. retry: the moment of the next try has come.
    """

    version: int
    state: ModelState
    stamp: Hashable
    whole: bool
    tried: Hashable
    failed: bool
    retry: bool

    @property
    def due(self) -> bool:
        """Whether it should be loaded now: new, ended cleanly, changed since it failed, or to be tried again."""
        if self.state not in (ModelState.START, ModelState.END):
            return False
        return self.retry if self.waits_for_retry else self.whole

    @property
    def waits_for_retry(self) -> bool:
        return self.state is ModelState.END and self.failed and not self.changed

    @property
    def changed(self) -> bool:
        return self.stamp is not None and self.stamp != self.tried


def next_load(candidates: Iterable[Candidate], loading: bool) -> int | None:
    """The highest wanted version that is due. loading: one of the model is being loaded, so that none is."""
    return None if loading else max((each.version for each in candidates if each.due), default=None)


def to_unload(available: Sequence[int], wanted: Collection[int]) -> tuple[int, ...]:
    """Versions that serve and should go.

    While no wanted one serves, the highest of the others stays; when nothing is wanted, none does.
    """
    unwanted = sorted(set(available) - set(wanted))
    if not wanted or len(unwanted) < len(available):
        return tuple(unwanted)
    return tuple(unwanted[:-1])

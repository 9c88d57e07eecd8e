"""One model: its versions, where each stands, and which one a request means. Pure; only the keeper changes it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from math import ceil

from accelserve.backends.base import DeviceState, Health
from accelserve.config import ModelConfig
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef, VersionStatus
from accelserve.models.reload import Reload, ReloadPolicy
from accelserve.models.servable import Servable
from accelserve.models.standing import Standing
from accelserve.models.versions import Candidate, ModelState, next_load, to_unload
from accelserve.models.watch import Seen, Sighting

_ENDED_KEPT = 8  # versions that ended stay in the status, as in TF Serving, but not for ever
_LOST_RETRY_S = 5  # another replica, or this one when it is loaded again
_LOADING_RETRY_S = 1


@dataclass(slots=True, eq=False)
class Lineup:
    """A model's versions.

    wanted: version -> where it was last seen. problem: why the last look found none. current: the version for requests
    that name none, the highest AVAILABLE one. settled: the first version has loaded or failed. gone: its source has it
    no more.
    """

    config: ModelConfig
    policy: ReloadPolicy
    standings: dict[int, Standing] = field(default_factory=dict)
    wanted: Mapping[int, Seen] = field(default_factory=dict)
    problem: ScoringError | None = None
    current: Servable | None = None
    settled: bool = False
    gone: bool = False

    @property
    def name(self) -> str:
        return self.config.name

    # -- what is seen and done ----------------------------------------------------------------------------------

    def see(self, sighting: Sighting) -> None:
        """Take a new look. Of a model that cannot be looked at, what is there stays."""
        self.config, self.problem, self.gone = sighting.config, sighting.problem, False
        if sighting.problem is not None:
            self.settled = True
            return
        self.wanted = sighting.versions
        for version in self.wanted:
            if version not in self.standings:
                self.standings[version] = Standing(version, Reload(self.policy))
        self._forget_ended()

    def leave(self) -> None:
        """The source has this model no more."""
        self.wanted, self.gone = {}, True
        self._forget_ended()

    def _forget_ended(self) -> None:
        to_load = self._to_load()
        unwanted = [s for v, s in self.standings.items() if v not in to_load]
        ended = sorted(s.version for s in unwanted if s.state is ModelState.END)
        never_loaded = [s.version for s in unwanted if s.state is ModelState.START]
        for version in (*ended[:-_ENDED_KEPT], *never_loaded):
            del self.standings[version]

    def moved(self) -> None:
        """A standing has changed."""
        self.current = self._highest_available()
        if any(self.standings[version].servable is not None for version in self.wanted):
            for standing in self.standings.values():
                standing.yielded = False
        self.settled = self.settled or any(standing.state.settled for standing in self.standings.values())

    def _highest_available(self) -> Servable | None:
        available = [s for s in self.standings.values() if s.servable is not None]
        return max(available, key=lambda standing: standing.version).servable if available else None

    # -- what is to be done -------------------------------------------------------------------------------------

    def begin_load(self, now_ns: int) -> tuple[Standing, Seen] | None:
        """The version to load now, which is LOADING from here on; None when nothing is due."""
        to_load = self._to_load()
        candidates = (self._candidate(version, seen, now_ns) for version, seen in to_load.items())
        version = next_load(candidates, self._is_loading)
        if version is None:
            return None
        standing, seen = self.standings[version], to_load[version]
        if self._candidate(version, seen, now_ns).changed:
            standing.reload.forget()
            standing.tried = seen.stamp
        standing.state, standing.seen, standing.took_over = ModelState.LOADING, seen, False
        return standing, seen

    def _to_load(self) -> Mapping[int, Seen]:
        """The wanted versions; while none of them serves, also those that stood in for them and lost their device, and
        those that made room for one of them."""
        if not self.wanted or any(self.standings[version].servable is not None for version in self.wanted):
            return self.wanted
        standings = self.standings.items()
        stood_in = {v: s.seen for v, s in standings if (s.loss is not None or s.yielded) and s.seen is not None}
        return {**stood_in, **self.wanted}

    @property
    def _is_loading(self) -> bool:
        return any(standing.state is ModelState.LOADING for standing in self.standings.values())

    def _candidate(self, version: int, seen: Seen, now_ns: int) -> Candidate:
        standing = self.standings[version]
        failed, retry = standing.error is not None, standing.reload.due(now_ns)
        return Candidate(version, standing.state, seen.stamp, seen.whole, standing.tried, failed, retry)

    def begin_unload(self) -> list[Standing]:
        """The versions that go now: UNLOADING from here on, no request finds them any more."""
        available = [v for v, s in self.standings.items() if s.state is ModelState.AVAILABLE]
        leaving = [self.standings[version] for version in to_unload(available, self.wanted)]
        for standing in leaving:
            standing.retire()
        self.moved()
        return leaving

    def make_room(self, device_id: str) -> list[Standing]:
        """The versions that go so that a wanted one gets the device that they hold: UNLOADING from here on.

        Only versions that are not wanted go; one that is wanted holds its device against all others.
        """
        held = [
            s
            for v, s in self.standings.items()
            if v not in self.wanted and s.servable is not None and device_id in s.servable.device_ids
        ]
        for standing in held:
            standing.retire()
            standing.yielded = True
        self.moved()
        return held

    @property
    def is_over(self) -> bool:
        """Its source has it no more and nothing of it is left."""
        return self.gone and not any(s.state.moving or s.servable is not None for s in self.standings.values())

    def wake_at_ns(self) -> int | None:
        """When the next try of a version is due; None while one is loaded, whose end is a change of its own."""
        if self._is_loading:
            return None
        tries = [
            self.standings[version].reload.at_ns
            for version, seen in self._to_load().items()
            if self._candidate(version, seen, 0).waits_for_retry
        ]
        return min((at_ns for at_ns in tries if at_ns is not None), default=None)

    # -- what is told -------------------------------------------------------------------------------------------

    @property
    def state(self) -> ModelState:
        """AVAILABLE if any version is, else that of the version that comes next, else the newest version's."""
        if self.current is not None:
            return ModelState.AVAILABLE
        if (decisive := self._decisive()) is not None:
            return decisive.state
        return ModelState.START if self.problem is None else ModelState.END

    @property
    def error(self) -> ScoringError | None:
        """Why it serves nothing, or not the newest version. A lost device is decisive."""
        errors = [s.error for s in self._by_number() if s.error is not None]
        lost = next((error for error in errors if error.kind is Kind.DEVICE_LOST), None)
        return lost or self.problem or next(iter(errors), None)

    @property
    def has_hope(self) -> bool:
        """A version is on its way, or will be tried again after it lost its device."""
        to_load = self._to_load()
        return any(
            s.state.moving
            or (s.version in to_load and (s.state is ModelState.START or (s.reload.lost and not s.reload.given_up)))
            for s in self.standings.values()
        )

    @property
    def has_lost_for_good(self) -> bool:
        return any(s.reload.given_up for s in self.standings.values())

    def available_versions(self) -> Iterator[int]:
        return (version for version, standing in self.standings.items() if standing.servable is not None)

    def servables(self) -> Iterator[Servable]:
        return (s.servable for s in self.standings.values() if s.servable is not None)

    def healths(self) -> Iterator[tuple[str, Health]]:
        """Of the devices on which versions are being loaded, where that is told."""
        return ((s.device_id, s.health) for s in self.standings.values() if s.health is not None)

    def statuses(self) -> list[VersionStatus]:
        """Every version, the newest first; version 0 stands for a model of which none is known."""
        if not self.standings:
            return [_status(0, self.state, self.problem)]
        return [_status(s.version, s.state, s.error) for s in self._by_number()]

    def find(self, ref: ModelRef) -> Servable:
        """The version that a request means.

        Raises ScoringError: NOT_FOUND, LOADING, PROGRAMMING, DEVICE_LOST, CONFLICT.
        """
        if ref.version is None:
            if self.current is not None:
                return self.current
            raise self._not_available(self._decisive(), ref)
        standing = self.standings.get(ref.version)
        if standing is not None and standing.servable is not None:
            return standing.servable
        if standing is None and self.settled:
            raise ScoringError(Kind.NOT_FOUND, f"Servable not found for request: {asked(ref, self.name)}")
        raise self._not_available(standing, ref)

    def _not_available(self, standing: Standing | None, ref: ModelRef) -> ScoringError:
        state = self.state if standing is None else standing.state
        error = self.problem if standing is None else standing.error
        if error is not None and error.kind is Kind.DEVICE_LOST:
            message = f"model {self.name} is unavailable: {error.message}"
            return ScoringError(Kind.DEVICE_LOST, message, retry_after_s=_LOST_RETRY_S)
        if standing is not None and standing.health is not None and standing.health.state is DeviceState.PROGRAMMING:
            return _programming(self.name, standing.health)
        if state in (ModelState.START, ModelState.LOADING):
            message = f"model {self.name} is not ready yet: {state.value}"
            return ScoringError(Kind.LOADING, message, retry_after_s=_LOADING_RETRY_S)
        message = f"Servable not found for request: {asked(ref, self.name)}"
        if error is None:
            return ScoringError(Kind.NOT_FOUND, message)
        if error.kind is Kind.CONFLICT:
            message = f"model {self.name} has no device: {error.message}"
            return ScoringError(Kind.CONFLICT, message, reason=error.reason)
        return ScoringError(Kind.NOT_FOUND, f"{message}; it failed to load: {error.message}", reason="load_failed")

    def _by_number(self) -> list[Standing]:
        return sorted(self.standings.values(), key=lambda standing: -standing.version)

    def _decisive(self) -> Standing | None:
        """Of a model that serves nothing: a version that lost its device, else one to come, else the newest."""
        standings = self._by_number()
        lost = (standing for standing in standings if standing.loss is not None)
        coming = (standing for standing in standings if standing.state in (ModelState.LOADING, ModelState.START))
        return next(chain(lost, coming, standings), None)


def _programming(model: str, health: Health) -> ScoringError:
    wait_s = _LOADING_RETRY_S if health.ready_in_s is None else max(_LOADING_RETRY_S, ceil(health.ready_in_s))
    message = f"model {model} is not ready yet: {health.reason}"
    return ScoringError(Kind.PROGRAMMING, message, retry_after_s=wait_s)


def asked(ref: ModelRef, name: str) -> str:
    """TF Serving's words for what a request wants."""
    return f"Latest({name})" if ref.version is None else f"Specific({name}, {ref.version})"


def _status(version: int, state: ModelState, error: ScoringError | None) -> VersionStatus:
    code, text = (error.kind.grpc_code, error.message) if error is not None else (0, "")
    return VersionStatus(version, state.value, code, text)

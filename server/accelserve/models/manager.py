"""Which models are there, and which version a request means: what the rest of the server asks.

The decisions are pure and elsewhere: `lineup` (one model), `versions` (what to do next), `reload` (when to try again).
`keeper` acts on them.
"""

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

from accelserve.backends.base import DeviceState, Health
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef, VersionStatus
from accelserve.models.board import Board
from accelserve.models.keeper import Keeper, KeeperPolicy
from accelserve.models.lineup import Lineup, asked
from accelserve.models.resident import VersionLoader
from accelserve.models.servable import Servable
from accelserve.models.versions import ModelState
from accelserve.models.watch import ModelSource

__all__ = ["ModelManager", "ModelState"]

_EMPTY_RETRY_S = 2


class ModelManager:
    """Serves what its sources hold, each version brought up and down on its own.

    Entering starts the first look and returns at once; leaving drains and closes what is loaded. A version that fails
    ends in END with its error and leaves everything else alone.
    """

    def __init__(
        self,
        sources: Sequence[ModelSource],
        loader: VersionLoader,
        policy: KeeperPolicy | None = None,
        *,
        default: str = "",
        service: str = "",
        follows: str = "",
    ) -> None:
        """default: the model for requests that name none. service: a name that is no model's, and names none.

        follows: whence models may come at any time, "" nowhere.
        """
        policy = policy or KeeperPolicy()
        expected = [config for source in sources for config in source.expected()]
        self._board = Board(expected, policy.reload)
        self._keeper = Keeper(self._board, sources, loader, policy)
        self._default = default
        self._service = service
        self._follows = follows

    async def __aenter__(self) -> Self:
        self._keeper.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._keeper.stop()

    # -- which model a request means ----------------------------------------------------------------------------

    def resolve(self, ref: ModelRef) -> Servable:
        """The version that a request means; who holds it may submit to it even after it is replaced.

        Raises ScoringError: INVALID (no name and several models, or a label), NOT_FOUND, LOADING, DEVICE_LOST. The
        texts are TF Serving's (specs/tfserving.md 1.5), since readiness probes and clients search them.
        """
        lineup = self._lineup(ref.name)
        if lineup is None:
            raise ScoringError(
                Kind.NOT_FOUND, f"Servable not found for request: {asked(ref, ref.name or self._default)}"
            )
        if ref.label is not None:
            raise ScoringError(Kind.INVALID, f"Unrecognized servable version label: {ref.label}")
        return lineup.find(ref)

    def _lineup(self, name: str) -> Lineup | None:
        """By name; without one the default model, else the only one (DESIGN section 5: real FPGA clients send none)."""
        lineups = self._board.lineups
        if name and name == self._service and name not in lineups:
            name = ""
        if name or self._default:
            return lineups.get(name or self._default)
        if len(lineups) == 1:
            return next(iter(lineups.values()))
        if not lineups:
            raise ScoringError(Kind.LOADING, self.why_not_ready(), retry_after_s=_EMPTY_RETRY_S)
        usable = (each for each in lineups.values() if each.current or each.has_hope or not each.settled)
        names = ", ".join(sorted(each.name for each in usable))
        message = f"the request names no model and there is no default one; say one of: {names}"
        raise ScoringError(Kind.INVALID, message, reason="model_not_named")

    # -- what is told -------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return list(self._board.lineups)

    def knows(self, model: str, version: str) -> bool:
        """Whether the status has this version, as a label spells it."""
        lineup = self._board.lineups.get(model)
        return lineup is not None and version.isdecimal() and int(version) in lineup.standings

    def statuses(self, ref: ModelRef) -> list[VersionStatus]:
        """All versions of a model, or the one that is asked for, newest first.

        Raises ScoringError(NOT_FOUND) in TF Serving's words.
        """
        lineup = self._lineup(ref.name)
        if lineup is None:
            raise ScoringError(Kind.NOT_FOUND, f"Could not find any versions of model {ref.name or self._default}")
        statuses = lineup.statuses()
        if ref.version is None:
            return statuses
        found = [status for status in statuses if status.version == ref.version]
        if not found:
            raise ScoringError(Kind.NOT_FOUND, f"Could not find version {ref.version} of model {lineup.name}")
        return found

    def state(self, name: str) -> ModelState:
        """Of a name in `names`: AVAILABLE if any version is, else what comes next, else the newest version's."""
        return self._board.lineups[name].state

    def servables(self) -> Iterator[Servable]:
        """Every AVAILABLE version."""
        return (servable for lineup in self._board.lineups.values() for servable in lineup.servables())

    def device_states(self) -> dict[str, DeviceState]:
        """Of the devices that models hold, or are being loaded on, by id."""
        found: dict[str, DeviceState] = {}
        for servable in self.servables():
            for instance in servable.scheduler.instances:
                device_id = instance.device.id
                if not instance.lost or device_id not in found:
                    found[device_id] = DeviceState.LOST if instance.lost else DeviceState.READY
        for lineup in self._board.lineups.values():
            found |= {device_id: health.state for device_id, health in lineup.healths()}
        return found

    def health(self, name: str, version: int) -> Health | None:
        """Of the device on which a version of a name in `names` is being loaded, where that is told."""
        standing = self._board.lineups[name].standings.get(version)
        return standing.health if standing is not None else None

    def ready(self, name: str | None = None) -> bool:
        """One model: it has an AVAILABLE version. All: the first loads are over and at least one is AVAILABLE."""
        if name is not None:
            lineup = self._board.lineups.get(name)
            return lineup is not None and lineup.current is not None
        return self.settled() and any(lineup.current is not None for lineup in self._board.lineups.values())

    def why_not_ready(self) -> str:
        """For people; of a server that is not."""
        if not self._board.looked:
            return "the models are being looked up"
        if not self._board.lineups:
            return f"{self._follows} holds no model yet"
        waiting = sorted(each.name for each in self._board.lineups.values() if not each.settled)
        return f"still loading: {', '.join(waiting)}" if waiting else "no model is AVAILABLE"

    def first_error(self) -> ScoringError | None:
        """The decisive one: a lost device, else that of the first model in order."""
        if self._board.looked and not self._board.lineups and not self._follows:
            return ScoringError(Kind.NOT_FOUND, "there is no model to serve")
        errors = [each.error for each in self._board.lineups.values() if each.error is not None]
        lost = next((error for error in errors if error.kind is Kind.DEVICE_LOST), None)
        return lost or next(iter(errors), None)

    def settled(self) -> bool:
        """The loads of the start are over, well or not."""
        return self._board.settled

    def exhausted(self) -> bool:
        """Nothing is served and nothing will be in this process, unless a source that is followed brings something.

        A device that is lost for good ends a followed server too: only a new process can use it again.
        """
        lineups = self._board.lineups.values()
        if not self._board.looked or any(each.current is not None or each.has_hope for each in lineups):
            return False
        return not self._follows or any(each.has_lost_for_good for each in lineups)

    async def changed(self, until: Callable[[], bool]) -> None:
        """Wait until `until()` holds; it is asked again after each change of a model's state."""
        await self._board.changed(until)

    async def announce(self) -> None:
        """Let everybody in `changed` look again: something outside the models has changed."""
        await self._board.announce()

"""One version of a model as it moves through its states. Pure; only the keeper changes it."""

from collections.abc import Hashable
from dataclasses import dataclass

from accelserve.backends.base import Health
from accelserve.errors import Kind, ScoringError
from accelserve.models.reload import Reload
from accelserve.models.servable import Servable
from accelserve.models.versions import ModelState
from accelserve.models.watch import Seen


@dataclass(slots=True, eq=False)
class Standing:
    """One version as it moves through its states.

    servable: while it is AVAILABLE. device_id, health: of the device on which it is LOADING, where that is told.
    yielded: it went so that a newer version gets its device, and comes back if that fails. took_over: it is the newer
    one. tried: the stamp of its files when it was last loaded. error: why it ended, or why the last load failed.
    loss: how it lost its device, until it is AVAILABLE again. seen: as it was last loaded.
    """

    version: int
    reload: Reload
    state: ModelState = ModelState.START
    error: ScoringError | None = None
    loss: ScoringError | None = None
    servable: Servable | None = None
    device_id: str = ""
    health: Health | None = None
    yielded: bool = False
    took_over: bool = False
    tried: Hashable = None
    seen: Seen | None = None

    def serve(self, servable: Servable, now_ns: int) -> None:
        self.state, self.servable, self.error, self.loss = ModelState.AVAILABLE, servable, None, None
        self.health, self.yielded = None, False
        self.reload.available(now_ns)

    def lose(self, loss: ScoringError, now_ns: int, chance: float) -> None:
        """Its device is gone: it goes down, to be loaded again."""
        self.state, self.servable, self.error, self.loss = ModelState.UNLOADING, None, loss, loss
        self.reload.lose(now_ns, chance)

    def retire(self) -> None:
        self.state, self.servable = ModelState.UNLOADING, None

    def fail(self, error: ScoringError, now_ns: int, chance: float) -> None:
        """It did not load. One that had served stays a device's loss to its clients.

        One that another made room for is not tried again before its files change, since each try ends what serves;
        unless a third got the device meanwhile, so that nothing does.
        """
        self.reload.fail(error.kind, now_ns, chance, may_heal=not self.took_over or error.kind is Kind.CONFLICT)
        self.state, self.error, self.health = ModelState.END, error, None
        if self.loss is not None:
            times = f"{self.reload.failures} failed reloads, the last: {error.message}"
            self.error = ScoringError(Kind.DEVICE_LOST, f"{self.loss.message}; {times}")

"""Whether the whole server is ready, and why not: one answer for every probe."""

from dataclasses import dataclass
from typing import Protocol

from accelserve.lifecycle import Lifecycle
from accelserve.models.manager import ModelManager


class ScriptState(Protocol):
    """Of an entry script's workers."""

    def ready(self) -> bool: ...

    def why_not_ready(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Readiness:
    """script: the entry script, where there is one. wants_models: whether there has to be a model too."""

    models: ModelManager
    lifecycle: Lifecycle
    script: ScriptState | None = None
    wants_models: bool = True

    def ready(self) -> bool:
        """Every model has settled and at least one is AVAILABLE, the script runs, and nobody has told us to stop."""
        if self.lifecycle.stopping or (self.script is not None and not self.script.ready()):
            return False
        return not self.wants_models or self.models.ready()

    def why_not(self) -> str:
        """For people; of a server that is not."""
        if self.lifecycle.stopping:
            return "the server is stopping"
        told = [] if self.script is None or self.script.ready() else [self.script.why_not_ready()]
        if self.wants_models and not self.models.ready():
            told.append(self.models.why_not_ready())
        return "; ".join(told)

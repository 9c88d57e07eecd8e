"""Where the process stands between its first socket and its last answer."""

from enum import Enum


class Phase(Enum):
    """SERVING; GRACE: asked to stop, readiness off, still answering; DRAINING: accepted work only."""

    SERVING = "serving"
    GRACE = "grace"
    DRAINING = "draining"


class Lifecycle:
    """The phase, moved by the runtime and read by everybody else; only the event loop touches it."""

    def __init__(self) -> None:
        self.phase = Phase.SERVING

    @property
    def stopping(self) -> bool:
        return self.phase is not Phase.SERVING

    @property
    def draining(self) -> bool:
        return self.phase is Phase.DRAINING

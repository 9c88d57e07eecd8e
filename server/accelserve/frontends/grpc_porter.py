"""Who is let in over gRPC: judged by a call's metadata, before its message is read."""

from dataclasses import dataclass
from typing import Any

from accelserve.errors import ScoringError
from accelserve.frontends.grpc_calls import GrpcCalls
from accelserve.frontends.grpc_core import CoreCall
from accelserve.frontends.guard import Guard


@dataclass(frozen=True, slots=True)
class GrpcPorter:
    """A guard at the listener's door."""

    guard: Guard
    calls: GrpcCalls

    def refusal(self, path: str, metadata: Any) -> ScoringError | None:
        """On the thread that hears gRPC. metadata: pairs of key and value; keys are in lower case."""
        sent = [value for key, value in metadata if key == "authorization"]
        return self.guard.refusal(path, sent[0] if len(sent) == 1 else None)

    def turn_away(self, core: CoreCall, error: ScoringError) -> None:
        """On the event loop."""
        self.calls.turn_away(core, error)

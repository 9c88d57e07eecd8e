"""A version of a model that is loaded, and everything a request needs to know about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from accelserve.backends.base import Batch, BatchResult, Capabilities, DeviceLease, ModelArtifact, Session, buffers_of
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler
from accelserve.errors import Kind, ScoringError
from accelserve.models.self_check import CheckReport
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import DEFAULT_SIGNATURE, Signature


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What loading took, in seconds, and what the self-check says."""

    check: CheckReport
    prepare_s: float
    load_s: float
    warmup_s: float


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model resident on a device, before it has a queue.

    labels: name of each class, by index. preprocessing: signature name -> what is done to a picture for its only
    dense image input.
    """

    artifact: ModelArtifact
    backend: str
    session: Session
    capabilities: Capabilities
    policy: BatchPolicy
    report: LoadReport
    labels: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Preprocessing] = field(default_factory=dict)
    lease: DeviceLease | None = None

    def close(self) -> None:
        self.session.close()
        if self.lease is not None:
            self.lease.release()


class WatchedSession:
    """A session that tells when its device is lost; everything else is the session's own."""

    def __init__(self, session: Session, lost: Callable[[ScoringError], object]) -> None:
        """lost: called from a model thread with the error, each time it happens."""
        self.signatures = session.signatures
        self.device = session.device
        self.placement = session.placement
        self.close = session.close
        self.buffers = buffers_of(session)
        self._run = session.run
        self._lost = lost

    def run(self, batch: Batch) -> BatchResult:
        try:
            return self._run(batch)
        except ScoringError as error:
            if error.kind is Kind.DEVICE_LOST:
                self._lost(error)
            raise


@dataclass(frozen=True, slots=True)
class Servable:
    """One AVAILABLE version: the loaded model and its queue."""

    model: LoadedModel
    scheduler: Scheduler

    @property
    def name(self) -> str:
        return self.model.artifact.name

    @property
    def version(self) -> int:
        return self.model.artifact.version

    @property
    def signatures(self) -> Mapping[str, Signature]:
        return self.model.session.signatures

    def signature(self, name: str) -> Signature:
        """By name, "" for `serving_default`, else the only one. Raises ScoringError(PRECONDITION)."""
        found = self.signatures.get(name or DEFAULT_SIGNATURE)
        if found is not None:
            return found
        if not name and len(self.signatures) == 1:
            return next(iter(self.signatures.values()))
        # TF Serving's words (specs/tfserving.md 1.5); clients search them.
        known = ", ".join(sorted(self.signatures))
        wanted = name or DEFAULT_SIGNATURE
        raise ScoringError(Kind.PRECONDITION, f'Serving signature key "{wanted}" not found. The model has: {known}')

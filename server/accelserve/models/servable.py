"""A version of a model that is loaded, and everything a request needs to know about it."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from accelserve.backends.base import Capabilities, Device, DeviceLease, ModelArtifact, Session
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler
from accelserve.binding import Binder
from accelserve.errors import Kind, ScoringError
from accelserve.models.pixels import PixelPaths
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
    """A model resident on its devices, before it has a queue.

    sessions: one for each instance, alike but for their devices. labels: name of each class, by index.
    preprocessing: signature name -> what is done to a picture for its only dense image input. pixels: whose pictures
    the device normalises.
    """

    artifact: ModelArtifact
    backend: str
    sessions: tuple[Session, ...]
    capabilities: Capabilities
    policy: BatchPolicy
    report: LoadReport
    labels: tuple[str, ...] | None = None
    preprocessing: Mapping[str, Preprocessing] = field(default_factory=dict)
    pixels: PixelPaths = field(default_factory=PixelPaths)
    leases: tuple[DeviceLease, ...] = ()

    @property
    def session(self) -> Session:
        """The first: its signatures are those of all."""
        return self.sessions[0]

    @property
    def devices(self) -> tuple[Device, ...]:
        """Each once, in the order that was asked for."""
        return tuple({session.device.id: session.device for session in self.sessions}.values())

    @property
    def emulated(self) -> bool:
        """Whether any answer may be an emulated one."""
        return any(device.emulated for device in self.devices)

    def close(self) -> None:
        close_all(self.sessions, self.leases)


def close_all(sessions: Iterable[Session], leases: Iterable[DeviceLease]) -> None:
    """Free every device, whatever one of them says to it."""
    with ExitStack() as stack:
        for lease in leases:
            stack.callback(lease.release)
        for session in sessions:
            stack.callback(session.close)


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Servable:
    """One AVAILABLE version: the loaded model and its queue.

    Who holds it may still submit to it: a version that is replaced is drained when nobody does any more.
    """

    model: LoadedModel
    scheduler: Scheduler
    _binders: dict[str, Binder] = field(default_factory=dict, init=False, repr=False)

    def binder(self, signature: Signature) -> Binder:
        """For a signature of this version, or one that it has for pictures."""
        found = self._binders.get(signature.name)
        if found is None:
            found = self._binders[signature.name] = Binder(signature, f"{self.name}:{self.version}")
        return found

    @property
    def name(self) -> str:
        return self.model.artifact.name

    @property
    def version(self) -> int:
        return self.model.artifact.version

    @property
    def device_ids(self) -> frozenset[str]:
        return frozenset(device.id for device in self.model.devices)

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

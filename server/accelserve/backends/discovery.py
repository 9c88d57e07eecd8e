"""Which back end, on which device, runs a model; nothing heavy is imported until a back end is chosen."""

import importlib
import logging
import threading
from collections.abc import Collection, Sequence

from accelserve.backends.base import (
    API_VERSION,
    Backend,
    Device,
    Inventory,
    ModelArtifact,
    Offer,
)
from accelserve.backends.plug_ins import discover
from accelserve.devices import DeviceKind, DeviceRequest
from accelserve.errors import Kind, ScoringError

logger = logging.getLogger("accelserve.backends")
_METHODS = ("inventory", "capabilities", "prepare", "load", "health")


def load_backend(offer: Offer) -> Backend:
    """Import and make the back end. Raises ScoringError(PRECONDITION) if it cannot be used here."""
    if offer.unavailable:
        raise ScoringError(Kind.PRECONDITION, f"back end {offer.name}: {offer.unavailable}")
    module, _, name = offer.backend.partition(":")
    try:
        backend: Backend = getattr(importlib.import_module(module), name)()
    except (Exception, SystemExit) as error:
        reason = f"{offer.backend} does not load: {type(error).__name__}: {error}"
        raise ScoringError(Kind.PRECONDITION, f"back end {offer.name}: {reason}") from error
    spoken = getattr(backend, "api_version", "(none is told)")
    if spoken != API_VERSION:
        versions = f"speaks version {spoken} of the back-end interface, this server version {API_VERSION}"
        raise ScoringError(Kind.PRECONDITION, f"back end {offer.name} {versions}: install a matching release")
    lacks = [method for method in _METHODS if not callable(getattr(backend, method, None))]
    if lacks:
        raise ScoringError(Kind.PRECONDITION, f"back end {offer.name}: {offer.backend} has no {', '.join(lacks)}")
    return backend


class BackendPool:
    """The process's back ends: each made once, when first chosen."""

    def __init__(self, offers: Sequence[Offer] | None = None, allow: Collection[str] = ()) -> None:
        """offers: given by tests and embedders; by default what `discover(allow)` finds, and raises."""
        self.offers: tuple[Offer, ...] = tuple(discover(allow) if offers is None else offers)
        self._loaded: dict[Offer, Backend] = {}
        self._lock = threading.Lock()

    def backend(self, offer: Offer) -> Backend:
        """The one object for an offer. Raises ScoringError as `load_backend` does."""
        with self._lock:
            if offer not in self._loaded:
                self._loaded[offer] = load_backend(offer)
            return self._loaded[offer]

    def inventory(self, offer: Offer) -> Inventory:
        """What the back end finds; one that cannot be used has no device and says why for each kind."""
        try:
            inventory: object = self.backend(offer).inventory()
        except ScoringError as error:
            reason = error.message.removeprefix(f"back end {offer.name}: ")
        except Exception as error:
            logger.warning("back end %s: its inventory failed", offer.name, exc_info=True)
            reason = f"its inventory failed: {type(error).__name__}: {error}"
        else:
            if isinstance(inventory, Inventory):
                return inventory
            reason = f"its inventory is {type(inventory).__name__}, not an Inventory"
        return Inventory((), dict.fromkeys(offer.device_kinds, (reason,)))

    def choose(
        self, artifact: ModelArtifact, request: DeviceRequest, runtime: str | None = None
    ) -> tuple[Backend, tuple[Device, ...]]:
        """Who runs a model, and where: every device that the request names, else the first of the kind.

        runtime: the name of the only back end that may, None for any. Raises ScoringError: PRECONDITION when nothing
        takes the model's format, DEVICE_MISSING naming every missing piece when a wanted device is not there.
        """
        offers = self._offers_for(artifact, runtime)
        kinds = (DeviceKind.GPU, DeviceKind.CPU) if request.kind is None else (request.kind,)
        for kind in kinds:
            for offer in offers:
                devices = self._wanted(offer, kind, request)
                if devices:
                    self._tell_why_no_gpu(artifact, request, devices[0], offers)
                    return self.backend(offer), devices
        raise self._missing(artifact, request, offers)

    def _offers_for(self, artifact: ModelArtifact, runtime: str | None) -> list[Offer]:
        offers = [offer for offer in self.offers if artifact.format in offer.formats]
        if offers and runtime is not None:
            there = ", ".join(offer.name for offer in offers)
            offers = [offer for offer in offers if offer.name == runtime]
            if not offers:
                message = f'model "{artifact.name}": runtime "{runtime}" does not run {artifact.format} models'
                raise ScoringError(Kind.PRECONDITION, "; ".join([message, f"there is: {there}", *self._unknown()]))
        if not offers:
            formats = ", ".join(sorted({f for offer in self.offers for f in offer.formats})) or "none"
            message = f'model "{artifact.name}": no back end takes format "{artifact.format}" (formats here: {formats})'
            raise ScoringError(Kind.PRECONDITION, "; ".join([message, *self._unknown()]))
        return offers

    def _wanted(self, offer: Offer, kind: DeviceKind, request: DeviceRequest) -> tuple[Device, ...]:
        """The devices that this back end would use; none unless every one that is named is there.

        One that drives no such kind is not asked, so that nothing heavy is imported for it.
        """
        if kind not in offer.device_kinds:
            return ()
        there = [device for device in self.inventory(offer).devices if device.kind is kind]
        if not request.ids:
            return tuple(there[:1])
        by_id = {device.id: device for device in there}
        named = _ids(request)
        return tuple(by_id[each] for each in named) if by_id.keys() >= set(named) else ()

    def _tell_why_no_gpu(
        self, artifact: ModelArtifact, request: DeviceRequest, device: Device, offers: Sequence[Offer]
    ) -> None:
        """`auto` may fall back to the CPU, but the log says so."""
        if request.kind is None and device.kind is DeviceKind.CPU:
            reasons = "; ".join(self._reasons(offers, DeviceKind.GPU))
            logger.info('model "%s" runs on %s, not on a gpu: %s', artifact.name, device.id, reasons)

    def _missing(self, artifact: ModelArtifact, request: DeviceRequest, offers: Sequence[Offer]) -> ScoringError:
        kind = DeviceKind.CPU if request.kind is None else request.kind
        reasons = "; ".join(self._reasons(offers, kind, _ids(request)))
        if kind is DeviceKind.CPU:
            hint = _elsewhere(offers) if request.kind is None else ""
            return ScoringError(Kind.PRECONDITION, f'model "{artifact.name}" cannot run here: {reasons}{hint}')
        message = f'model "{artifact.name}" needs {request}: {reasons}'
        return ScoringError(Kind.DEVICE_MISSING, "; ".join([message, *self._unknown()]))

    def _unknown(self) -> list[str]:
        """The back ends that may be what is wanted, but did not say what they do: why not, of each."""
        unknown = [offer for offer in self.offers if offer.unavailable and not offer.formats]
        return [f"{offer.name}: {offer.unavailable}" for offer in unknown]

    def _reasons(self, offers: Sequence[Offer], kind: DeviceKind, named: Sequence[str] = ()) -> list[str]:
        """Of those that drive the kind, else of all, why they do not here."""
        able = [offer for offer in offers if kind in offer.device_kinds] or offers
        return [f"{offer.name}: {self._why_not(offer, kind, named)}" for offer in able]

    def _why_not(self, offer: Offer, kind: DeviceKind, named: Sequence[str] = ()) -> str:
        if kind not in offer.device_kinds:
            return f"it drives no {kind.value}"
        inventory = self.inventory(offer)
        there = [device.id for device in inventory.devices if device.kind is kind]
        if there:
            absent = [each for each in named if each not in there]
            told = f"there is no {' and no '.join(absent)}; " if absent else ""
            return f"{told}this host has {', '.join(there)}"
        missing = inventory.missing.get(kind, ()) or ((offer.unavailable,) if offer.unavailable else ())
        return ", ".join(missing) or f"it found no {kind.value}"


def _elsewhere(offers: Sequence[Offer]) -> str:
    """The devices that nobody gets unasked, and that are for this model."""
    kinds = sorted({kind.value for offer in offers for kind in offer.device_kinds} - {"cpu", "gpu"})
    return f"; it has to be asked for by --device {' or '.join(kinds)}" if kinds else ""


def _ids(request: DeviceRequest) -> tuple[str, ...]:
    """The devices' ids that a request names."""
    return tuple(f"{request.kind.value}:{each}" for each in request.ids) if request.kind is not None else ()

"""From a path to a model resident on a device: find, place, prepare, load, warm, check. Blocking, no event loop."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelserve.backends.base import (
    CONVERSION_FAILED,
    ArtifactCache,
    Backend,
    Capabilities,
    Device,
    DeviceLease,
    Health,
    ModelArtifact,
    Session,
    SessionOptions,
)
from accelserve.backends.discovery import BackendPool
from accelserve.backends.lease import DeviceTaken, acquire_lease
from accelserve.batching.policy import BatchPolicy
from accelserve.config import ModelConfig
from accelserve.devices import DeviceKind, DeviceRequest, parse_device_request
from accelserve.errors import ScoringError
from accelserve.models.fitting import (
    check_instances,
    check_labels,
    fit_policy,
    picture_preprocessing,
    session_options,
    tell_decoded,
    tell_guesses,
)
from accelserve.models.manifest import Manifest, read_manifest
from accelserve.models.pixels import PixelPaths, take_decoded, take_pixels
from accelserve.models.placement import warn_of_placement
from accelserve.models.repository import find_models, find_version
from accelserve.models.self_check import CheckReport, CodecCheck, check_pixels, check_session
from accelserve.models.servable import LoadedModel, LoadReport, close_all
from accelserve.preprocessing import Preprocessing

logger = logging.getLogger("accelserve.models")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model was found, and what its own file says."""

    artifact: ModelArtifact
    manifest: Manifest


@dataclass(slots=True)
class LoadStage:
    """How far a load is: written by the thread that loads, read by whoever tells of it.

    loading: the device on which the back end opens the model at this moment.
    """

    loading: tuple[Backend, Device] | None = None

    def health(self) -> tuple[str, Health | None]:
        """The device's id and what the back end says of it, when it is one that others cannot have; blocks."""
        backend, device = self.loading or (None, None)
        if backend is None or device is None or not device.exclusive:
            return "", None
        return device.id, backend.health(device)


@dataclass(frozen=True, slots=True)
class Loader:
    """What loading needs from outside.

    device, threads, instances: the server's choice for models that do not choose. leases: folder of lease files.
    """

    backends: BackendPool
    cache: ArtifactCache
    leases: Path
    check_codecs: CodecCheck
    device: str = "auto"
    threads: int | None = None
    instances: int = 1

    def find(self, config: ModelConfig) -> Source:
        """The newest version that the model's path holds. Raises ScoringError: NOT_FOUND, PRECONDITION."""
        assert config.path is not None
        found = find_models(config.name, config.path)
        return Source(found.versions[0], read_manifest(found.manifest))

    def find_version(self, name: str, version: int, place: Path) -> Source:
        """One version, where it lies. Raises ScoringError(PRECONDITION)."""
        found = find_version(name, version, place)
        return Source(found.versions[0], read_manifest(found.manifest))

    def load(self, config: ModelConfig, source: Source, stage: LoadStage | None = None) -> LoadedModel:
        """Make it resident, warmed and checked. Raises ScoringError; what was opened is closed again.

        stage: told on which device the model is being loaded. With `auto`, a model that could not be
        converted for the GPU is loaded on the CPU, and the log says why.
        """
        request = parse_device_request(config.device or source.manifest.device or self.device)
        backend, devices = self.backends.choose(source.artifact, request, source.manifest.runtime)
        try:
            return self._load_on(backend, devices, request, config, source, stage)
        except ScoringError as error:
            if request.kind is not None or devices[0].kind is DeviceKind.CPU or error.reason != CONVERSION_FAILED:
                raise
            name, where = source.artifact.name, devices[0].id
            logger.warning('model "%s" runs on the CPU: no device is required, and not on %s: %s', name, where, error)
        request = DeviceRequest(DeviceKind.CPU)
        on_cpu = self.backends.choose(source.artifact, request, source.manifest.runtime)
        return self._load_on(*on_cpu, request, config, source, stage)

    def _load_on(
        self,
        backend: Backend,
        devices: tuple[Device, ...],
        request: DeviceRequest,
        config: ModelConfig,
        source: Source,
        stage: LoadStage | None,
    ) -> LoadedModel:
        manifest = source.manifest
        threads = config.threads or manifest.threads or self.threads
        options = replace(session_options(manifest, threads), server_decodes=manifest.decode == "server")
        instances = config.instances or manifest.instances or self.instances
        capabilities = [backend.capabilities(device, options) for device in devices]
        check_instances(source.artifact.name, devices, capabilities, instances)
        sessions: list[Session] = []
        leases: list[DeviceLease] = []
        try:
            others = () if request.ids else _others(backend, devices)
            plan = _Plan(backend, devices, others, instances, config.name, stage or LoadStage())
            spent = self._open(plan, source, options, sessions, leases)
            return self._checked(backend, sessions, leases, capabilities, source, spent)
        except BaseException:
            close_all(sessions, leases)
            raise

    def _open(
        self,
        plan: "_Plan",
        source: Source,
        options: SessionOptions,
        sessions: list[Session],
        leases: list[DeviceLease],
    ) -> tuple[float, float]:
        """Fill `sessions` and `leases`. Returns the seconds that preparing and loading took.

        All is prepared before a device is asked for: what fails there takes no device from anybody.
        """
        started = time.monotonic()
        progress = partial(_log_progress, source.artifact.name)
        prepared = [
            plan.backend.prepare(source.artifact, device, options, self.cache, progress) for device in plan.devices
        ]
        prepared_at = time.monotonic()
        for wanted, ready in zip(plan.devices, prepared, strict=True):
            device, lease = self._take(plan, wanted)
            if lease is not None:
                leases.append(lease)
            plan.stage.loading = (plan.backend, device)
            sessions += [plan.backend.load(ready, device, options, lease) for _ in range(plan.instances)]
        plan.stage.loading = None
        return prepared_at - started, time.monotonic() - prepared_at

    def _take(self, plan: "_Plan", device: Device) -> tuple[Device, DeviceLease | None]:
        """The device or, where any of its kind will do, the first that nobody has. Raises DeviceTaken of the former."""
        if not device.exclusive:
            return device, None
        try:
            return device, acquire_lease(self.leases, device.id, plan.holder)
        except DeviceTaken:
            for other in plan.others:
                with suppress(DeviceTaken):
                    return other, acquire_lease(self.leases, other.id, plan.holder)
            raise

    def _checked(
        self,
        backend: Backend,
        sessions: Sequence[Session],
        leases: Sequence[DeviceLease],
        capabilities: Sequence[Capabilities],
        source: Source,
        spent: tuple[float, float],
    ) -> LoadedModel:
        started = time.monotonic()
        artifact, manifest = source.artifact, source.manifest
        signatures = sessions[0].signatures
        policy = manifest.batching
        for each in capabilities:
            policy = fit_policy(policy, each)
        decoded = take_decoded(sessions, manifest, artifact.format)
        steps = {name: each.preprocessing for name, each in decoded.items()}
        preprocessing = picture_preprocessing(manifest, signatures) | steps
        tell_guesses(artifact.name, preprocessing)
        tell_decoded(artifact.name, decoded)
        check_labels(manifest, signatures)
        pixels = take_pixels(sessions, preprocessing, manifest, decoded)
        deterministic = all(each.deterministic for each in capabilities)
        # Every instance is warmed and proved: a device of its own may have kernels of its own.
        checks = [self._check(session, policy, deterministic, preprocessing, pixels) for session in sessions]
        for session in {each.device.id: each for each in sessions}.values():
            warn_of_placement(artifact, session)
        report = LoadReport(checks[0], *spent, time.monotonic() - started)
        least = replace(capabilities[0], max_inflight=min(each.max_inflight for each in capabilities))
        return LoadedModel(
            artifact,
            backend.name,
            tuple(sessions),
            least,
            policy,
            report,
            manifest.labels,
            preprocessing,
            pixels,
            tuple(leases),
        )

    def _check(
        self,
        session: Session,
        policy: BatchPolicy,
        deterministic: bool,
        preprocessing: Mapping[str, Preprocessing],
        pixels: PixelPaths,
    ) -> CheckReport:
        signatures = {name: pixels.dense(signature) for name, signature in session.signatures.items()}
        report = check_session(session, policy, self.check_codecs, deterministic, signatures)
        told = [
            check_pixels(session, signatures[name], path, preprocessing[name], policy, deterministic)
            for name, path in pixels.by_signature.items()
            if path.signature != signatures[name]
        ]
        return replace(report, detail="; ".join([report.detail, *dict.fromkeys(told)]))


@dataclass(frozen=True, slots=True)
class _Plan:
    """others: that will do as well. instances: sessions on each device. holder: the model's name, for leases."""

    backend: Backend
    devices: tuple[Device, ...]
    others: tuple[Device, ...]
    instances: int
    holder: str
    stage: LoadStage


def _others(backend: Backend, devices: tuple[Device, ...]) -> tuple[Device, ...]:
    """Exclusive devices like the first in kind and name, so that what is prepared for it runs on them too."""
    first = devices[0]
    if not first.exclusive:
        return ()
    there = (each for each in backend.inventory().devices if each not in devices)
    return tuple(each for each in there if (each.kind, each.name) == (first.kind, first.name))


def _log_progress(model: str, what: str, done: float) -> None:
    logger.info("%s: %s, %.0f %%", model, what, done * 100)

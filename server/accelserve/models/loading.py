"""From a path to a model resident on a device: find, place, prepare, load, warm, check. Blocking, no event loop."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from accelserve.backends.base import (
    ArtifactCache,
    Backend,
    Capabilities,
    Device,
    DeviceLease,
    ModelArtifact,
    Session,
    SessionOptions,
)
from accelserve.backends.discovery import BackendPool
from accelserve.backends.lease import acquire_lease
from accelserve.batching.policy import BatchPolicy
from accelserve.config import ModelConfig
from accelserve.devices import parse_device_request
from accelserve.errors import Kind, ScoringError
from accelserve.image_signature import check_fits, guess_preprocessing
from accelserve.models.manifest import Manifest, read_manifest, with_signature
from accelserve.models.repository import find_models
from accelserve.models.self_check import CheckReport, CodecCheck, check_session
from accelserve.models.servable import LoadedModel, LoadReport
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import Signature

logger = logging.getLogger("accelserve.models")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model was found, and what its own file says."""

    artifact: ModelArtifact
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Loader:
    """What loading needs from outside.

    device, threads: the server's choice for models that do not choose. leases: folder of lease files.
    """

    backends: BackendPool
    cache: ArtifactCache
    leases: Path
    check_codecs: CodecCheck
    device: str = "auto"
    threads: int | None = None

    def find(self, config: ModelConfig) -> Source:
        """The newest version. Raises ScoringError: NOT_FOUND, PRECONDITION."""
        found = find_models(config.name, config.path)
        return Source(found.versions[0], read_manifest(found.manifest))

    def load(self, config: ModelConfig, source: Source) -> LoadedModel:
        """Make it resident, warmed and checked. Raises ScoringError; what was opened is closed again."""
        request = parse_device_request(config.device or source.manifest.device or self.device)
        threads = config.threads or source.manifest.threads or self.threads
        policy = source.manifest.batching
        options = SessionOptions(threads, source.manifest.backend, policy.max_batch_size, policy.allowed_batch_sizes)
        backend, device = self.backends.choose(source.artifact, request)
        lease = acquire_lease(self.leases, device.id, config.name) if device.exclusive else None
        try:
            return self._load_on(backend, device, lease, source, options)
        except BaseException:
            if lease is not None:
                lease.release()
            raise

    def _load_on(
        self, backend: Backend, device: Device, lease: DeviceLease | None, source: Source, options: SessionOptions
    ) -> LoadedModel:
        started = time.monotonic()
        prepared = backend.prepare(
            source.artifact, device, options, self.cache, partial(_log_progress, source.artifact.name)
        )
        prepared_at = time.monotonic()
        session = backend.load(prepared, device, options, lease)
        loaded_at = time.monotonic()
        try:
            capabilities = backend.capabilities(device, options)
            policy = fit_policy(source.manifest.batching, capabilities)
            preprocessing = picture_preprocessing(source.manifest, session.signatures)
            _tell_guesses(source.artifact.name, preprocessing)
            check_labels(source.manifest, session.signatures)
            check = self._check(session, policy, capabilities)
        except BaseException:
            session.close()
            raise
        report = LoadReport(check, prepared_at - started, loaded_at - prepared_at, time.monotonic() - loaded_at)
        return LoadedModel(
            source.artifact,
            backend.name,
            session,
            capabilities,
            policy,
            report,
            source.manifest.labels,
            preprocessing,
            lease,
        )

    def _check(self, session: Session, policy: BatchPolicy, capabilities: Capabilities) -> CheckReport:
        return check_session(session, policy, self.check_codecs, capabilities.deterministic)


def _log_progress(model: str, what: str, done: float) -> None:
    logger.info("%s: %s, %.0f %%", model, what, done * 100)


def fit_policy(policy: BatchPolicy, capabilities: Capabilities) -> BatchPolicy:
    """The policy within what the device takes: larger requests are split by the scheduler."""
    most = capabilities.max_batch
    if most is None or policy.max_batch_size <= most:
        return policy
    sizes = tuple(size for size in policy.allowed_batch_sizes if size < most)
    return replace(policy, max_batch_size=most, allowed_batch_sizes=(*sizes, most) if sizes else ())


def _tell_guesses(model: str, preprocessing: Mapping[str, Preprocessing]) -> None:
    for signature, steps in preprocessing.items():
        if steps.guessed:
            logger.info(
                "%s: pictures for %s are decoded as the signature suggests: %s to %dx%d, %s, %s, x * %.4g; "
                "say otherwise in the model's accelserve.toml",
                model,
                signature,
                steps.resize,
                *steps.size,
                steps.channel_order,
                steps.layout,
                steps.scale[0],
            )


def check_labels(manifest: Manifest, signatures: Mapping[str, Signature]) -> None:
    """Labels must be as many as the classes, where a signature says how many these are.

    Raises ScoringError(PRECONDITION).
    """
    if manifest.labels is None:
        return
    for signature in signatures.values():
        shapes = [spec.shape for spec in signature.outputs.values() if spec.dtype.numpy.kind == "f"]
        widths = {shape[-1] for shape in shapes if shape is not None and len(shape) == 2 and shape[-1] > 0}
        if widths and len(manifest.labels) not in widths:
            classes = " or ".join(map(str, sorted(widths)))
            message = f"{manifest.source}: {len(manifest.labels)} labels, but the model has {classes} classes"
            raise ScoringError(Kind.PRECONDITION, message)


def picture_preprocessing(manifest: Manifest, signatures: Mapping[str, Signature]) -> dict[str, Preprocessing]:
    """For each signature with one dense picture input: what is done to a picture before it.

    Raises ScoringError(PRECONDITION) when the model's file contradicts the signature.
    """
    found = {}
    for name, signature in signatures.items():
        if len(signature.inputs) != 1:
            continue
        spec = next(iter(signature.inputs.values()))
        values = manifest.preprocessing if spec.shape is not None and len(spec.shape) == 4 else {}
        preprocessing = with_signature(values, guess_preprocessing(spec))
        if preprocessing is not None and not spec.dtype.is_string:
            try:
                check_fits(preprocessing, spec)
            except ScoringError as error:
                raise ScoringError(Kind.PRECONDITION, f"{manifest.source}: {error.message}") from error
            found[name] = preprocessing
    if manifest.preprocessing and not found:
        message = f"{manifest.source}: [preprocessing] is given, but no signature has a single dense picture input"
        raise ScoringError(Kind.PRECONDITION, message)
    return found

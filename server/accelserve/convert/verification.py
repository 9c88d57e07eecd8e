"""`accelserve verify`: two models, or one and itself, side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from accelserve.backends.base import Session
from accelserve.backends.lease import acquire_lease
from accelserve.config import ModelConfig
from accelserve.convert.compare import Comparison, compare, compare_widely
from accelserve.convert.samples import from_file, generated
from accelserve.devices import parse_device_request
from accelserve.errors import Kind, ScoringError
from accelserve.models.fitting import session_options
from accelserve.models.loading import Loader
from accelserve.models.repository import name_of
from accelserve.tensors import Signature


@contextmanager
def opened(loader: Loader, path: Path, device: str) -> Iterator[Session]:
    """A model's newest version, without the self-check of `serve`: what that would find is what is to be shown."""
    name = name_of(path)
    source = loader.find(ModelConfig(name, path))
    artifact, manifest = source.artifact, source.manifest
    options = session_options(manifest, manifest.threads)
    backend, (place, *_) = loader.backends.choose(artifact, parse_device_request(device), manifest.runtime)
    lease = acquire_lease(loader.leases, place.id, name) if place.exclusive else None
    try:
        prepared = backend.prepare(artifact, place, options, loader.cache, lambda what, done: None)
        session = backend.load(prepared, place, options, lease)
        try:
            yield session
        finally:
            session.close()
    finally:
        if lease is not None:
            lease.release()


def verify(
    candidate: Session, reference: Session, samples: Sequence[Path], rows: int, tolerance: float
) -> list[Comparison]:
    """Each signature of both, with each sample. Raises ScoringError(INVALID) when the two have none in common."""
    signatures = [s for name, s in reference.signatures.items() if name in candidate.signatures]
    if not signatures:
        there, other = (", ".join(sorted(session.signatures)) for session in (candidate, reference))
        raise ScoringError(Kind.INVALID, f"the models have no signature in common: {there} and {other}")
    for signature in signatures:
        _same_names(candidate.signatures[signature.name], signature)
    return [
        comparison
        for signature in signatures
        for comparison in _compared(candidate, reference, signature, samples, rows, tolerance)
    ]


def _same_names(candidate: Signature, reference: Signature) -> None:
    for direction in ("inputs", "outputs"):
        got, wanted = (sorted(getattr(signature, direction)) for signature in (candidate, reference))
        if got != wanted:
            message = f'signature "{reference.name}": the models have other {direction}: {got} and {wanted}'
            raise ScoringError(Kind.INVALID, message)


def _compared(
    candidate: Session, reference: Session, signature: Signature, samples: Sequence[Path], rows: int, tolerance: float
) -> list[Comparison]:
    if not samples:
        return compare_widely(reference, candidate, signature, generated(signature, rows), tolerance)
    asked = [(path.name, from_file(signature, path)) for path in samples]
    return [compare(reference, candidate, signature, [sample], tolerance) for sample in asked]

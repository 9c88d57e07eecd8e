"""Models opened as the server opens them: through the pool of back ends, prepare, load."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Batch, Capabilities, ModelArtifact, Session, SessionOptions
from accelserve.backends.discovery import BackendPool
from accelserve.devices import parse_device_request
from accelserve.tensors import Signature, Tensor
from benchmarks.gpu_parts.plan import Plan

# Arithmetic -> settings of the back end; tf32 is what the CUDA provider does where nothing is said.
SETTINGS: Mapping[str, Mapping[str, Any]] = {"fp32": {"tf32": False}, "tf32": {}, "fp16": {"precision": "fp16"}}
# |answer - fp32 on the CPU| / |the latter|, of the worst row: tf32 and fp16 have 10 bits of fraction, 50 layers add up.
TOLERANCES = {"fp32": 1e-4, "tf32": 5e-3, "fp16": 2e-2}
CPU_ARITHMETIC = "fp32 on the CPU"


@dataclass(frozen=True, slots=True)
class Opened:
    session: Session
    capabilities: Capabilities

    @property
    def signature(self) -> Signature:
        return next(iter(self.session.signatures.values()))

    def run(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """All outputs."""
        rows = len(next(iter(inputs.values())))
        batch = Batch(self.signature.name, inputs, tuple(self.signature.outputs), rows)
        return self.session.run(batch).outputs


@contextmanager
def opened(
    plan: Plan, path: Path, settings: Mapping[str, Any], batch_sizes: Sequence[int] = (), device: str | None = None
) -> Iterator[Opened]:
    """A session on the plan's device, or another. Raises ScoringError as the server would tell it."""
    artifact = ModelArtifact(path.stem, 1, "onnx", path)
    backend, (place, *_) = BackendPool().choose(artifact, parse_device_request(device or plan.device))
    options = SessionOptions(None, settings, batch_sizes[-1] if batch_sizes else plan.most_rows, tuple(batch_sizes))
    cache = FolderArtifactCache(plan.folder / "cache")
    prepared = backend.prepare(artifact, place, options, cache, lambda what, done: None)
    session = backend.load(prepared, place, options, None)
    try:
        yield Opened(session, backend.capabilities(place, options))
    finally:
        session.close()


def settings_for(plan: Plan, arithmetic: str) -> Mapping[str, Any]:
    """A CPU has no tf32: what is said for it there is fp32, and `as_said` tells so."""
    return {} if plan.dry_run and arithmetic != "fp16" else SETTINGS[arithmetic]


def as_said(plan: Plan, arithmetic: str) -> str:
    """What a section's "tf32" really is where it runs."""
    return CPU_ARITHMETIC if plan.dry_run and arithmetic == "tf32" else arithmetic

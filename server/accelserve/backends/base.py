"""The accelerator interface, version 1: what a back end is, and what the server asks of it.

Three lifetimes, as in Triton's backend API: a *backend* (one per process) knows devices; a *prepared* model is the
result of slow, cacheable, device-family-specific work and may be made offline; a *session* is one model resident on
one device and answers batches. A back end sees tensors and never a protocol.

What a back end may do beyond that is in protocols of their own (`Buffered`, `TakesPixels`,
`DecodedFor`, `Steady`, `RunsApart`, `Remarked`, `CountsNonFinite`, `Featured`): the
server asks whether the methods are there.

Discovery is by entry points (group `accelserve.backends`): each names a probe without arguments that returns an
`Offer` and imports nothing heavy. `pytest --pyargs accelserve.backends.conformance --backend NAME` checks a back end.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from accelserve.devices import DeviceKind
from accelserve.errors import ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import Signature, Tensor

API_VERSION = 1
# The reason of a ScoringError from `prepare`: this device cannot run the model, another may.
CONVERSION_FAILED = "conversion_failed"

Progress = Callable[[str, float], None]  # (what is being done, fraction done from 0 to 1)


class DeviceState(Enum):
    ABSENT = "absent"
    FREE = "free"
    PROGRAMMING = "programming"
    READY = "ready"
    DEGRADED = "degraded"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Device:
    """A place where a model can run; cheap to describe, no context is created.

    id: unique on the host and stable, "cpu:0", "gpu:0", "fpga:0000:65:00.0"; it names the lease file.
    exclusive: one process may hold it at a time. emulated: answers are not the device's own and are labelled so.
    """

    id: str
    kind: DeviceKind
    name: str
    memory_bytes: int | None = None
    exclusive: bool = False
    emulated: bool = False


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a back end found. missing: for each kind it could drive but cannot, the missing pieces by name."""

    devices: tuple[Device, ...]
    missing: Mapping[DeviceKind, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a back end does on one device, with the options of one model.

    numerics: "fp32", "fp16", "bfp(m=3,e=8,b=16)". max_batch: most rows a run takes, None for no limit; larger
    requests are split by the server. max_inflight: runs that may overlap, each on a thread of its own.
    models_per_device: None for any number. deterministic: equal inputs give equal bits, in any batch.
    """

    formats: frozenset[str]
    numerics: str = "fp32"
    max_batch: int | None = None
    max_inflight: int = 1
    models_per_device: int | None = None
    deterministic: bool = False


@dataclass(frozen=True, slots=True)
class Health:
    """ready_in_s: of a device that is being programmed, how long that takes yet, where it is known."""

    state: DeviceState
    reason: str = ""
    ready_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class ModelArtifact:
    """A model on disk. format: "onnx", "saved_model", "cut", "accelonnx" or "synthetic".

    path: the file, or the folder of all but "onnx" and "synthetic".
    """

    name: str
    version: int
    format: str
    path: Path


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How a session is made. threads: CPU threads for one run, None for the back end's own choice.

    max_batch_size: most rows it will be run with. batch_sizes: the only sizes that it will be run with, ascending;
    empty: any up to max_batch_size. Both let a back end make buffers, engines or graphs before the first request.
    server_decodes: where the model's own graph decodes pictures and the session can do without (`DecodedFor`), that
    part of it is not loaded.
    extra: settings that only this back end knows; it refuses unknown keys.
    """

    threads: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    max_batch_size: int = 1
    batch_sizes: tuple[int, ...] = ()
    server_decodes: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """Which nodes of the graph run where, for status and metrics: provider or processor -> number of nodes."""

    nodes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A model ready to load. payload belongs to the back end; digest names it in the cache."""

    artifact: ModelArtifact
    payload: Any
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows to run at once. inputs are keyed by signature key; without a batch axis, rows is 1.

    rows: how many are real; the arrays may hold more (padding), whose results nobody reads.
    outputs: signature keys wanted, never empty.
    """

    signature: str
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Outputs by signature key, with as many rows as the batch's arrays had.

    item_errors: row -> what is wrong with that row alone; its neighbours' results hold.
    modelled_device_ns: what the emulated device would have taken; never mixed with measured time.
    """

    outputs: Mapping[str, Tensor]
    item_errors: Mapping[int, ScoringError] = field(default_factory=dict)
    modelled_device_ns: int | None = None


class ArtifactCache(Protocol):
    """Where prepared models are kept between runs, by digest."""

    def folder(self, digest: str, build: Callable[[Path], None]) -> Path:
        """The folder for `digest`; when absent, `build(empty folder)` fills it and it appears atomically."""
        ...


class DeviceLease(Protocol):
    """Proof that this process may use a device; given up by `release` or by the process's death."""

    device_id: str

    def release(self) -> None: ...


@runtime_checkable
class Session(Protocol):
    """One model resident on one device. `run` is called from its own threads, of a `Steady` one elsewhere too."""

    signatures: Mapping[str, Signature]
    device: Device
    placement: Placement

    def run(self, batch: Batch) -> BatchResult:
        """Answer a batch; blocks.

        Raises ScoringError: INVALID or UNDECODABLE when the input is at fault (the server then runs the rows one by
        one), DEVICE_LOST, DEVICE_MEMORY, INTERNAL otherwise. A session stays usable after all but DEVICE_LOST.
        """
        ...

    def close(self) -> None:
        """Free the device; waits for a run under way. A second call does nothing."""
        ...


@runtime_checkable
class Buffered(Protocol):
    """Optional for a session: memory of its own that a batch can be stacked into, so that it is not copied again."""

    def buffers(self, signature: str, rows: int) -> Mapping[str, Tensor] | None:
        """An array [rows, *rest] for each input of the signature, or None: stack into memory of your own.

        The arrays are the calling thread's until its next call of `buffers` or `run`. A batch of these very arrays is
        read in place; a thread that fills them and never runs hurts nobody. No answer may alias them.
        """
        ...


def buffers_of(session: object) -> Callable[[str, int], Mapping[str, Tensor] | None]:
    """The session's `buffers`; of a session that has none, a function that always says None."""
    return session.buffers if isinstance(session, Buffered) else _no_buffers


def _no_buffers(signature: str, rows: int) -> None:
    return None


@runtime_checkable
class TakesPixels(Protocol):
    """Optional for a session: its device normalises pictures, so that they reach it as bytes, a quarter of floats."""

    def take_pixels(self, signature: str, preprocessing: Preprocessing) -> Signature:
        """Make ready to run a signature on pixels; asked once for each signature, before the first run.

        Returns the signature that such batches name, which `run` and `buffers` know and `signatures` does not have: the
        one input, under its own names, is uint8 [n, H, W, C] of `preprocessing`'s size and channels; the outputs are
        the same. The device does (x - mean) * scale in float32, the layout and the input's dtype.
        Raises ScoringError: UNSUPPORTED with the reason when it cannot; what `Backend.load` does when that fails.
        """
        ...


@dataclass(frozen=True, slots=True)
class DecodedInput:
    """A signature of encoded pictures as one of decoded ones.

    signature: what such batches name, which `run` and `buffers` know and `signatures` does not have: the one input,
    under its own names, is what `preprocessing` makes of the pictures; the outputs are the same.
    pixel_error, output_error: how far the server's decoder was found to be from the model's own: the largest
    difference of a pixel, of 255, and of an output, over that output's largest magnitude.
    only: the model has no other decoder; clients may send decoded pictures instead of strings.
    """

    signature: Signature
    preprocessing: Preprocessing
    pixel_error: float
    output_error: float
    only: bool = False


@runtime_checkable
class DecodedFor(Protocol):
    """Optional for a session: of a model that takes encoded pictures, the server may decode them in its place.

    Models of format "accelonnx" leave that to the server always; of others the model's file has to say so.
    """

    def take_decoded(self, signature: str) -> DecodedInput:
        """Make ready to run a signature of strings on decoded pictures; asked once for each, before the first run.

        `take_pixels` knows the signature that it returns. Raises ScoringError(UNSUPPORTED) with the reason when the
        graph's own way of decoding is not known.
        """
        ...


@runtime_checkable
class Steady(Protocol):
    """Optional for a session: whose runs can be foretold, so that the shortest need no thread of their own.

    steady: what a run takes follows from the shapes of its inputs alone, not from their values, and it waits for
    nothing: no device, no lock that is held for long, no sleep. The server then runs batches of shapes that were over
    within microseconds before on the thread that gathered them, which is the event loop's.
    """

    steady: bool


def is_steady(session: object) -> bool:
    return isinstance(session, Steady) and session.steady


@runtime_checkable
class RunsApart(Protocol):
    """Optional for a session: it runs the rows of a batch one by one anyway.

    Requests that need no padding then come one after the other, each in its own memory, instead of stacked; a run that
    fails fails for all of them, and each is run again.
    runs_apart: which is seen once, when the model has loaded. Not for sessions that model a device's time.
    """

    runs_apart: bool


def runs_apart(session: object) -> bool:
    return isinstance(session, RunsApart) and session.runs_apart


@runtime_checkable
class Remarked(Protocol):
    """Optional for a session: what a person who looks at the model should know, a sentence each; `show` prints them."""

    remarks: tuple[str, ...]


@runtime_checkable
class CountsNonFinite(Protocol):
    """Optional for a session: whose numbers overflow. nonfinite_values: infinities and NaNs since it was opened."""

    nonfinite_values: int


@runtime_checkable
class Featured(Protocol):
    """Optional for a back end: what it can do beyond its devices, for `accelserve devices`."""

    def features(self) -> Mapping[str, tuple[str, ...]]:
        """Feature -> the pieces that lack for it by name, none where it can be used. May load libraries."""
        ...


class Backend(Protocol):
    """One kind of runtime; one object per process. All methods may block and are called off the event loop."""

    name: str
    api_version: int

    def inventory(self) -> Inventory: ...

    def capabilities(self, device: Device, options: SessionOptions) -> Capabilities: ...

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """Slow work before loading (compile, convert, quantize). Raises ScoringError(PRECONDITION, ...)."""
        ...

    def load(self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None) -> Session:
        """Make the model resident. lease: not None when the device is exclusive.

        Raises ScoringError: DEVICE_MISSING naming what lacks, DEVICE_MEMORY, PRECONDITION for a model that cannot load.
        """
        ...

    def health(self, device: Device) -> Health: ...


@dataclass(frozen=True, slots=True)
class Offer:
    """What a probe returns: what the back end would serve, and where its class is ("module:Class").

    unavailable: why it cannot be used on this host, with the remedy; empty when it can.
    preference: of two that can, the larger is taken.
    """

    name: str
    formats: frozenset[str]
    device_kinds: frozenset[DeviceKind]
    backend: str
    unavailable: str = ""
    preference: int = 0

"""ONNX models on an emulated FPGA: its numbers, its limits and its states, computed on the CPU and labelled so."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import onnxruntime as ort

from accelserve.backends.accel_onnx.accel_model import FORMAT
from accelserve.backends.accel_onnx.card_session import TAIL_PLACE, Failures, OnCard
from accelserve.backends.accel_onnx.on_host import nodes_of, open_on_host, runner
from accelserve.backends.base import (
    API_VERSION,
    ArtifactCache,
    Capabilities,
    Device,
    DeviceLease,
    DeviceState,
    Health,
    Inventory,
    ModelArtifact,
    Placement,
    Prepared,
    Progress,
    SessionOptions,
)
from accelserve.backends.batch_check import label
from accelserve.backends.fpga_emulator.compiling import CompiledModel, compile_model
from accelserve.backends.fpga_emulator.options import EmulatorOptions, read_options
from accelserve.backends.fpga_emulator.self_test import check_arithmetic
from accelserve.backends.fpga_emulator.session import EmulatorSession
from accelserve.backends.fpga_emulator.telling import remarks_of
from accelserve.backends.lease import require_lease
from accelserve.backends.onnx_runtime.errors import kind_of, one_line
from accelserve.clock import Clock, MonotonicClock
from accelserve.cpus import usable_cpus
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor

DEVICE = Device(
    "fpga-emulator:0", DeviceKind.FPGA_EMULATOR, "block floating point on the CPU", exclusive=True, emulated=True
)


class FpgaEmulatorBackend:
    """Formats "onnx" and "accelonnx" on "fpga-emulator:0". Settings (`SessionOptions.extra`): see `EmulatorOptions`."""

    name = "fpga_emulator"
    api_version = API_VERSION

    def __init__(self, clock: Clock | None = None, wait: Callable[[float], None] = time.sleep) -> None:
        """clock, wait: stand-ins for tests; the card is programmed in that time."""
        self._clock = clock or MonotonicClock()
        self._wait = wait
        self._programmed_at_ns: int | None = None
        self._programming = ""
        self._lost = ""

    def inventory(self) -> Inventory:
        return Inventory((DEVICE,))

    def capabilities(self, device: Device, options: SessionOptions) -> Capabilities:
        chosen = read_options(self.name, options.extra)
        return Capabilities(
            frozenset({"onnx", FORMAT}),
            str(chosen.numerics),
            max_batch=chosen.max_batch,
            max_inflight=1,
            models_per_device=1,
        )

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """Raises ScoringError: INVALID for settings, PRECONDITION for a model that the card does not take."""
        chosen = read_options(label(artifact), options.extra)
        if not artifact.path.exists():
            raise ScoringError(Kind.PRECONDITION, f"{label(artifact)}: there is no file {artifact.path}")
        run_once = partial(_run_once, label(artifact), options.threads or usable_cpus())
        return Prepared(artifact, compile_model(artifact, chosen, cache, progress, run_once))

    def load(
        self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None
    ) -> EmulatorSession:
        """Programs the card, for as long as the settings say; the graphs are opened before that.

        Raises ScoringError(PRECONDITION) where golden values come out wrong in a session like the model's.
        """
        model = label(prepared.artifact)
        chosen = read_options(model, options.extra)
        require_lease(model, device, lease)
        compiled: CompiledModel = prepared.payload
        threads = options.threads or usable_cpus()
        check_arithmetic(chosen.numerics, partial(_run_once, model, threads))
        loaded = _loaded(model, compiled, device, threads, chosen)
        self._program(model, chosen.flash_s)
        failures = Failures(kind_of, one_line, lambda device, reason: self.lose(reason))
        return EmulatorSession(loaded, compiled.work, chosen, failures, self._clock, lambda: self._lost)

    def health(self, device: Device) -> Health:
        if self._lost:
            return Health(DeviceState.LOST, self._lost)
        ends_ns = self._programmed_at_ns
        if ends_ns is not None:
            left_s = max(0.0, (ends_ns - self._clock.now_ns()) / 1e9)
            reason = f"{device.id} is being programmed with {self._programming}: {left_s:.0f} s left"
            return Health(DeviceState.PROGRAMMING, reason, left_s)
        return Health(DeviceState.READY)

    def lose(self, reason: str) -> None:
        """Pull the card, for drills: runs fail until it is programmed anew."""
        self._lost = reason

    def _program(self, model: str, seconds: float) -> None:
        self._programming = model
        self._programmed_at_ns = self._clock.now_ns() + round(seconds * 1e9)
        try:
            if seconds:
                self._wait(seconds)
        finally:
            self._programmed_at_ns = None
        self._lost = ""


def _loaded(model: str, compiled: CompiledModel, device: Device, threads: int, options: EmulatorOptions) -> OnCard:
    accel = compiled.model
    card = _open(model, str(compiled.folder / accel.device.file), threads)
    tail = None if accel.tail is None else _open(model, str(compiled.folder / accel.tail.file), threads)
    nodes = {"fpga-emulator": nodes_of(card)} | ({TAIL_PLACE: nodes_of(tail)} if tail is not None else {})
    return OnCard(
        model,
        accel,
        device,
        Placement(nodes),
        runner(card),
        None if tail is None else runner(tail),
        rows=options.max_batch,
        padded=False,
        remarks=remarks_of(compiled, options),
    )


def _open(model: str, graph: str | bytes, threads: int) -> Any:
    return open_on_host(ort, model, graph, threads)


def _run_once(
    model: str, threads: int, graph: bytes, names: Sequence[str], inputs: Mapping[str, Tensor]
) -> Sequence[Tensor]:
    session = _open(model, graph, threads)
    try:
        made: list[Tensor] = session.run(list(names), dict(inputs))
    except Exception as error:
        message = f"{model} does not run on a generated row: {one_line(error)}"
        raise ScoringError(Kind.PRECONDITION, message) from error
    return made

"""Pixels for an ONNX model of floats: a second, tiny session on the same device makes them the model's input.

The model's own graph is left as it is, and its weights are loaded once. In bound memory the second session writes where
the model reads: its `Run` returns when its streams are done, and only then is the model's called. Without bound memory
its output is an OrtValue on the device, which the model is fed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from accelserve.backends.base import Device
from accelserve.backends.onnx_runtime.binding import Layout, Port, Slot, SlotPool, layout_of
from accelserve.backends.onnx_runtime.options import device_index
from accelserve.backends.onnx_runtime.pixel_graph import NORMALISED, pixel_graph, why_not_pixels
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, Signature, Tensor, TensorSpec

_SUFFIX = " of pixels"

OpenGraph = Callable[[bytes], Any]  # a serialized ONNX model -> the library's session of it, on the model's device


@dataclass(frozen=True, slots=True)
class PixelStage:
    """What runs before the model for one signature.

    signature: what batches of pixels name. spec: the model's input. steps: what becomes of pixels on the way to it.
    session: the library's. place: the device, as IOBinding names it. slots: by number of the model's slot that each
    writes into; empty without bound memory.
    """

    signature: Signature
    spec: TensorSpec
    steps: Preprocessing
    session: Any
    place: tuple[str, int]
    slots: tuple[Slot, ...]

    def run(self, slot: Slot, rows: int) -> None:
        """Make the pixels that `slot`, one of ours, has on the device the input of the model's slot."""
        self.session.run_with_iobinding(slot.binding(rows))

    def value(self, pixels: Tensor) -> Any:
        """The model's input as an OrtValue on the device, in memory that the library allocates."""
        binding = self.session.io_binding()
        binding.bind_cpu_input(self.spec.name, np.ascontiguousarray(pixels))
        binding.bind_output(self.spec.name + NORMALISED, *self.place)
        self.session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def close(self) -> None:
        """Let the session go."""
        for slot in self.slots:
            slot.close()


def open_stage(
    model: str, signature: Signature, steps: Preprocessing, device: Device, open_graph: OpenGraph, pool: SlotPool | None
) -> PixelStage:
    """pool: the model's slots, None where it has no bound memory.

    Raises ScoringError(UNSUPPORTED) with the reason where the device cannot do it, and what the library or CUDA raises.
    """
    taken = _signature_of_pixels(model, signature, steps)
    (spec,) = signature.inputs.values()
    session = open_graph(pixel_graph(steps, spec))
    place = ("cuda", device_index(device)) if device.kind is DeviceKind.GPU else ("cpu", 0)
    slots = () if pool is None else pool.before(session, _layout(taken, session, pool))
    return PixelStage(taken, spec, steps, session, place, slots)


def _signature_of_pixels(model: str, signature: Signature, steps: Preprocessing) -> Signature:
    if len(signature.inputs) != 1:
        raise ScoringError(Kind.UNSUPPORTED, f"{model} has {len(signature.inputs)} inputs, and a picture becomes one")
    (spec,) = signature.inputs.values()
    reason = why_not_pixels(steps, spec)
    if reason or spec.shape is None:
        raise ScoringError(Kind.UNSUPPORTED, f"{model}: {reason or f'input {spec.name} is of unknown rank'}")
    pixels = replace(spec, dtype=BY_NAME["uint8"], shape=(spec.shape[0], *steps.size, steps.channels))
    inputs: Mapping[str, TensorSpec] = MappingProxyType({spec.name: pixels})
    return replace(signature, name=signature.name + _SUFFIX, inputs=inputs)


def _layout(taken: Signature, session: Any, pool: SlotPool) -> Layout:
    """Pixels where the graph reads them; values where the model does."""
    own = layout_of(replace(taken, outputs={}), session)
    (read,) = next(iter(pool)).layout.inputs
    written = Port(read.name + NORMALISED, read.dtype, read.inner, read.batched, read.on_device)
    return Layout(own.inputs, (written,))

"""Slots: memory that an ONNX session is bound to once, so that a batch is copied once and nothing is allocated for it.

A slot has a host array for each input and output, room on the device for those that the graph reads or writes there,
and a stream of its own. All sizes up to the largest share its memory; each size has its own IOBinding, made at its
first run. Two slots let two batches overlap: while one computes, the other is copied in or out.

What ONNX Runtime does, by its source:
- `IOBinding::BindInput` (core/session/IOBinding.cc) copies an input that is not where the graph reads it, at the time
  of binding; later changes of the array would not be seen. So each is bound where `get_input_memory_infos` says.
- Each `Run` of a session takes a DeviceStreamCollection of its own from a pool (core/framework/session_state.cc), whose
  CUDA streams are non-blocking (core/providers/cuda/cuda_stream_handle.cc): runs of two threads overlap. With a
  `user_compute_stream`, or with CUDA graphs, all runs share one stream, so that option is left alone.
- `Run` returns when its streams are done. The copies here run on the slot's stream and are waited for on the host,
  before and after, so no event between the two is needed. `synchronize_inputs` would wait for the whole device.
- A bound output whose shape turns out another fails the run ("Got invalid dimensions for output").
"""

import queue
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from accelserve.backends.onnx_runtime.memory import Memory, Stream
from accelserve.tensors import Shape, Signature, Tensor, TensorSpec

_HOST = ("cpu", "pinned")  # in names of OrtMemoryInfo ("Cpu", "CudaPinned"): the graph reads or writes on the host


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output. shape: of `rows` rows where the signature is batched. on_device: where the graph has it."""

    name: str
    dtype: np.dtype[Any]
    inner: Shape
    batched: bool
    on_device: bool

    def shape(self, rows: int) -> Shape:
        return (rows, *self.inner[1:]) if self.batched else self.inner


@dataclass(frozen=True, slots=True)
class Layout:
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    def fits(self, inputs: Mapping[str, Tensor], rows: int) -> bool:
        """Whether these are the dtypes and shapes of a batch; the library does not look at bound memory."""
        for port in self.inputs:
            tensor = inputs[port.name]
            if tensor.dtype != port.dtype or tensor.shape != port.shape(rows):
                return False
        return True


def why_unbound(signature: Signature) -> str:
    """What keeps a signature from bound memory, "" when nothing does."""
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs.values():
            if spec.dtype.is_string:
                return f'{kind} "{spec.name}" is of strings'
            if spec.shape is None or any(size < 0 for size in spec.shape[1 if signature.batched else 0 :]):
                return f'{kind} "{spec.name}" has no fixed size: {spec}'
    return ""


def layout_of(signature: Signature, session: Any) -> Layout:
    """signature: one that `why_unbound` has nothing against. session: the library's, which knows what lies where."""
    inputs = _ports(signature, signature.inputs, session.get_inputs(), session.get_input_memory_infos())
    return Layout(
        inputs, _ports(signature, signature.outputs, session.get_outputs(), session.get_output_memory_infos())
    )


def _ports(
    signature: Signature, specs: Mapping[str, TensorSpec], args: Sequence[Any], places: Sequence[Any]
) -> tuple[Port, ...]:
    where = {arg.name: _is_device(place.name) for arg, place in zip(args, places, strict=True)}
    return tuple(
        Port(name, spec.dtype.numpy, spec.shape or (), signature.batched, where[name]) for name, spec in specs.items()
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    """A slot's memory as a batch of one size. address: None where the graph works on the host array itself."""

    inputs: Mapping[str, Tensor]
    arriving: tuple[tuple[int, Tensor], ...]
    outputs: Mapping[str, tuple[Tensor, int | None]]


def _is_device(memory: str) -> bool:
    return not any(word in memory.lower() for word in _HOST)


class Slot:
    """Memory for one batch of up to `most` rows, used by one thread at a time. number: counts from 0.

    into: a slot of another session, whose inputs are this one's outputs, in the order of both; it has none of its own.
    """

    def __init__(
        self, number: int, session: Any, layout: Layout, memory: Memory, most: int, into: "Slot | None" = None
    ) -> None:
        self.number = number
        self.layout = layout
        self._session = session
        self._memory = memory
        self._stream: Stream = memory.stream() if into is None else into._stream
        ports = layout.inputs if into is not None else (*layout.inputs, *layout.outputs)
        self._host = {port: memory.host_array(port.shape(most), port.dtype) for port in ports}
        self._address = {p: memory.device_buffer(host) for p, host in self._host.items() if p.on_device}
        if into is not None:
            for port, filled in zip(layout.outputs, into.layout.inputs, strict=True):
                self._host[port] = into._host[filled]
                if port.on_device:
                    self._address[port] = into._address[filled]
        self._sizes: dict[int, _Rows] = {}
        self._bindings: dict[int, Any] = {}

    def inputs(self, rows: int) -> Mapping[str, Tensor]:
        """The host arrays of a batch of `rows`: the same objects each time."""
        return self._size(rows).inputs

    def fill(self, inputs: Mapping[str, Tensor], rows: int) -> None:
        """Copy a batch in; what is there already, because it was stacked here, stays."""
        for name, own in self._size(rows).inputs.items():
            if inputs[name] is not own:
                np.copyto(own, inputs[name])

    def binding(self, rows: int) -> Any:
        """The library's IOBinding for a batch of `rows`; making one is a call of the library, as a run is."""
        found = self._bindings.get(rows)
        if found is None:
            found = self._bindings[rows] = self._bind(rows)
        return found

    def to_device(self, rows: int) -> None:
        """Returns when the inputs have arrived."""
        arriving = self._size(rows).arriving
        for address, host in arriving:
            self._stream.to_device(address, host)
        if arriving:
            self._stream.wait()

    def to_host(self, names: Sequence[str], rows: int) -> dict[str, Tensor]:
        """The outputs asked for, in memory of their own: the slot's is written again by the next batch."""
        outputs, moving = self._size(rows).outputs, False
        for name in names:
            host, address = outputs[name]
            if address is not None:
                self._stream.to_host(host, address)
                moving = True
        if moving:
            self._stream.wait()
        return {name: outputs[name][0].copy() for name in names}

    def close(self) -> None:
        """Let the session go; the memory's owner frees it."""
        self._bindings.clear()
        self._session = None

    def _size(self, rows: int) -> _Rows:
        found = self._sizes.get(rows)
        if found is None:
            found = self._sizes[rows] = self._make(rows)
        return found

    def _make(self, rows: int) -> _Rows:
        views = {port: host[:rows] if port.batched else host for port, host in self._host.items()}
        inputs, outputs, address = self.layout.inputs, self.layout.outputs, self._address
        return _Rows(
            MappingProxyType({port.name: views[port] for port in inputs}),
            tuple((address[port], views[port]) for port in inputs if port.on_device),
            {port.name: (views[port], address.get(port)) for port in outputs},
        )

    def _bind(self, rows: int) -> Any:
        made = self._session.io_binding()
        for ports, bind in ((self.layout.inputs, made.bind_input), (self.layout.outputs, made.bind_output)):
            for port in ports:
                kind, index, address = self._place(port)
                bind(port.name, kind, index, port.dtype.type, port.shape(rows), address)
        return made

    def _place(self, port: Port) -> tuple[str, int, int]:
        if port.on_device:
            return self._memory.device_type, self._memory.device_id, self._address[port]
        return "cpu", 0, self._host[port].ctypes.data


class SlotPool:
    """The slots of a session. rows: most that a batch may have."""

    def __init__(self, session: Any, layout: Layout, memory: Memory, rows: int, count: int) -> None:
        self.rows = rows
        self._memory = memory
        self._slots = tuple(Slot(number, session, layout, memory, rows) for number in range(count))
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for slot in self._slots:
            self._free.put(slot)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def before(self, session: Any, layout: Layout) -> tuple[Slot, ...]:
        """Slots of a session that runs before this one, by number: its outputs are the inputs of these."""
        return tuple(Slot(slot.number, session, layout, self._memory, self.rows, slot) for slot in self._slots)

    def take(self) -> Slot | None:
        """A free slot, None when all are in use: nobody waits here."""
        try:
            return self._free.get_nowait()
        except queue.Empty:
            return None

    def give_back(self, slot: Slot) -> None:
        self._free.put(slot)

    def close(self) -> None:
        """No run may be under way. Arrays that were lent stay valid, since each holds its memory."""
        for slot in self._slots:
            slot.close()
        self._memory.close()

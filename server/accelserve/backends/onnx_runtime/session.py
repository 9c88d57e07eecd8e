"""A model resident in an ONNX Runtime session; the library itself is not imported here."""

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from accelserve.backends.base import Batch, BatchResult, Device
from accelserve.backends.batch_check import check_batch, check_names
from accelserve.backends.onnx_runtime.assignment import placement_of
from accelserve.backends.onnx_runtime.binding import Slot, SlotPool
from accelserve.backends.onnx_runtime.empty import check_not_empty, one_row_for_none, recurrent_ops, without_rows
from accelserve.backends.onnx_runtime.errors import is_of_bound_output, kind_of, one_line
from accelserve.backends.onnx_runtime.pixels import PixelStage
from accelserve.backends.onnx_runtime.row_by_row import run_row_by_row
from accelserve.backends.onnx_runtime.steady import takes_what_shapes_say
from accelserve.backends.onnx_runtime.text import as_bytes, with_text
from accelserve.backends.run_gate import RunGate
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import Signature, Tensor

logger = logging.getLogger("accelserve.backends")
T = TypeVar("T")

OpenStage = Callable[[Signature, Preprocessing, SlotPool | None], PixelStage]

_NO_ARENA = "in the memory arena shrink list"  # ONNX Runtime, before it runs anything: no arena of that name


@dataclass(frozen=True, slots=True)
class RunWays:
    """How the library is called. Run options are the library's own values, or None.

    beside: entered around each run, if not None. call: runs a function of the run options on the thread that must do
    it, None where any may; close ends that thread.
    plain: options of runs without a slot. shrink: options of runs that give memory back, None where that is not done;
    shrink_above_rows: which these are. graph: options by (rows, slot number), for batches that have a CUDA graph.
    """

    beside: Callable[[], AbstractContextManager[None]] | None = None
    call: Callable[[Callable[[Any], Any], Any], Any] | None = None
    close: Callable[[], None] = lambda: None
    plain: Any = None
    shrink: Any = None
    shrink_above_rows: int | None = None
    graphs: Mapping[tuple[int, int], Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settled:
    """How a session was made ready for its first batch.

    slots: bound memory; without it, and for batches that do not fit it, the library allocates for each run.
    row_by_row: batches run so, where the library allocates.
    remarks: what a person should know of the model, a sentence each.
    """

    slots: SlotPool | None
    ways: RunWays
    remarks: tuple[str, ...] = ()
    row_by_row: bool = False


class OnnxRuntimeSession:
    """One model in one `InferenceSession`; runs may overlap. open_stage: makes what normalises pictures."""

    def __init__(
        self,
        model: str,
        session: Any,
        signature: Signature,
        device: Device,
        settled: Settled,
        open_stage: OpenStage,
        note_lost: Callable[[Device, str], None],
    ) -> None:
        self.signatures: Mapping[str, Signature] = MappingProxyType({signature.name: signature})
        self.device = device
        self.placement = placement_of(session)
        self.remarks = settled.remarks
        self._model = model
        self._session: Any = session
        self._note_lost = note_lost
        self._open_stage = open_stage
        self._stages: dict[str, PixelStage] = {}  # by the name of the signature of pixels
        self._slots = settled.slots
        self._ways = settled.ways
        self._lent = threading.local()  # .slot: what `buffers` gave this thread
        self._shrink_next = False
        self._may_shrink = True
        self._bound = settled.slots is not None
        self.runs_apart = self._row_by_row = settled.row_by_row
        self._gate = RunGate(model)
        self._recurrent = recurrent_ops(session)
        self._string_inputs = tuple(name for name, spec in signature.inputs.items() if spec.dtype.is_string)
        self._string_outputs = frozenset(name for name, spec in signature.outputs.items() if spec.dtype.is_string)
        text = self._string_inputs or self._string_outputs  # whose lengths shapes do not tell
        self.steady = device.kind is DeviceKind.CPU and not text and takes_what_shapes_say(session)

    def take_pixels(self, signature: str, preprocessing: Preprocessing) -> Signature:
        """One stage only, which is there already when it is asked for again: SavedModel's signatures share sessions."""
        for known in self._stages.values():
            if known.steps != preprocessing:
                message = f"{self._model} takes pixels already, and makes something else of them"
                raise ScoringError(Kind.UNSUPPORTED, message)
            return known.signature
        stage = self._open_stage(self.signatures[signature], preprocessing, self._slots)
        self._stages[stage.signature.name] = stage
        return stage.signature

    def buffers(self, signature: str, rows: int) -> Mapping[str, Tensor] | None:
        """The host arrays of a free slot."""
        stage = self._stages.get(signature)
        if stage is None and signature not in self.signatures:
            return None
        if not self._bound or self._slots is None or rows > self._slots.rows:
            return None
        slot = self._take_slot()
        if slot is None:
            return None
        self._lent.slot = slot
        return _first(slot, stage).inputs(rows)

    def run(self, batch: Batch) -> BatchResult:
        stage = self._stages.get(batch.signature)
        if stage is None:
            check_names(self._model, self.signatures, batch)
        else:
            check_batch(self._model, {batch.signature: stage.signature}, batch)
        signature = self.signatures[batch.signature] if stage is None else stage.signature
        if row := one_row_for_none(signature, batch):
            return without_rows(self.run(row))
        if self._recurrent:
            check_not_empty(self._model, batch.inputs, self._recurrent)
        beside = self._ways.beside
        with self._gate:
            if beside is None:
                return BatchResult(self._run_bound(batch, stage) if self._bound else self._run_plain(batch, stage))
            with beside():
                return BatchResult(self._run_bound(batch, stage))

    def close(self) -> None:
        if self._gate.close():
            for stage in self._stages.values():
                stage.close()
            self._stages.clear()
            if self._slots is not None:
                self._slots.close()
            self._session = None
            self._ways.close()

    # -- slots ------------------------------------------------------------------------------------------------------

    def _run_bound(self, batch: Batch, stage: PixelStage | None) -> dict[str, Tensor]:
        """In a slot, where there is a free one that the batch fits."""
        slot = self._take_slot() if self._bound else None
        if slot is None:
            return self._run_plain(batch, stage)
        try:
            return self._run_in(slot, batch, stage)
        finally:
            self._give_back(slot)

    def _take_slot(self) -> Slot | None:
        """The one that this thread was lent, else a free one."""
        lent: Slot | None = getattr(self._lent, "slot", None)
        self._lent.slot = None
        if lent is not None or self._slots is None:
            return lent
        return self._slots.take()

    def _give_back(self, slot: Slot) -> None:
        if self._slots is not None:
            self._slots.give_back(slot)

    def _run_in(self, slot: Slot, batch: Batch, stage: PixelStage | None) -> dict[str, Tensor]:
        first = _first(slot, stage)
        rows = self._rows_in(first, batch)
        if rows is None:
            return self._run_plain(batch, stage)
        try:
            first.fill(batch.inputs, rows)
            first.to_device(rows)
            if stage is not None:
                stage.run(first, rows)
            self._call(slot, rows)
            return slot.to_host(batch.outputs, rows)
        except Exception as error:
            if not is_of_bound_output(error):
                raise self._run_error(error) from error
            return self._run_unbound(batch, stage, error)

    def _rows_in(self, slot: Slot, batch: Batch) -> int | None:
        """How many rows the arrays have, None when they do not fit a slot."""
        if self._slots is None:
            return None
        first = next(iter(batch.inputs.values()))
        rows = first.shape[0] if first.ndim else 1
        return rows if 0 < rows <= self._slots.rows and slot.layout.fits(batch.inputs, rows) else None

    def _call(self, slot: Slot, rows: int) -> None:
        options = self._ways.graphs.get((rows, slot.number)) or self._run_options(rows)
        binding = slot.binding(rows)
        self._invoke(lambda chosen: self._session.run_with_iobinding(binding, chosen), options)

    def _run_unbound(self, batch: Batch, stage: PixelStage | None, error: Exception) -> dict[str, Tensor]:
        """An output has another shape than the signature promises: bound memory cannot do for this model."""
        outputs = self._run_plain(batch, stage)
        if self._bound:
            self._bound = False
            logger.warning("%s runs without bound memory from now on: %s", self._model, one_line(error))
        return outputs

    # -- runs -------------------------------------------------------------------------------------------------------

    def _run_plain(self, batch: Batch, stage: PixelStage | None) -> dict[str, Tensor]:
        try:
            values = self._run_arrays(batch) if stage is None else self._run_pixels(batch, stage)
        except ScoringError:
            raise
        except Exception as error:
            raise self._run_error(error) from error
        names = batch.outputs
        # One output is by far the usual case, and a third of a microsecond faster.
        outputs = {names[0]: values[0]} if len(values) == 1 else dict(zip(names, values, strict=True))
        for name in self._string_outputs:
            if name in outputs:
                outputs[name] = as_bytes(outputs[name])
        return outputs

    def _run_arrays(self, batch: Batch) -> list[Tensor]:
        inputs = batch.inputs
        feed = with_text(self._model, inputs, self._string_inputs) if self._string_inputs else {**inputs}
        options, ways = self._run_options(batch.rows), self._ways
        if options is ways.plain and ways.call is None:  # spares what `_invoke` is for, half a microsecond
            values: list[Tensor] | None = None
            if self._row_by_row and batch.rows > 1:
                values = self._run_rows(batch, feed)
            if values is None:
                values = self._session.run(batch.outputs, feed, options)
        else:
            values = self._invoke(lambda chosen: self._session.run(batch.outputs, feed, chosen), options)
        return values

    def _run_rows(self, batch: Batch, feed: Mapping[str, Tensor]) -> list[Tensor] | None:
        """Row by row; None where that is not how these inputs or their outputs are made."""
        axes = {tensor.shape[:1] for tensor in feed.values()}
        axis = axes.pop()
        return run_row_by_row(self._session.run, batch.outputs, feed, axis[0]) if axis and not axes else None

    def _run_pixels(self, batch: Batch, stage: PixelStage) -> list[Tensor]:
        (pixels,) = batch.inputs.values()
        feed = {stage.spec.name: stage.value(pixels)}
        options = self._run_options(batch.rows)
        run = self._session.run_with_ort_values
        return [value.numpy() for value in self._invoke(lambda chosen: run(batch.outputs, feed, chosen), options)]

    def _invoke(self, run: Callable[[Any], T], options: Any) -> T:
        """Call the library where it has to be called; if it has no arena to shrink, again without asking for that."""
        ways = self._ways
        try:
            answer: T = run(options) if ways.call is None else ways.call(run, options)
        except Exception as error:
            if options is None or options is not ways.shrink or _NO_ARENA not in str(error):
                raise
            self._may_shrink = False
            logger.warning("%s: its memory is not shrunk: %s", self._model, one_line(error))
            answer = run(ways.plain) if ways.call is None else ways.call(run, ways.plain)
        return answer

    def _run_options(self, rows: int) -> Any:
        """Those of a run that shrinks the arena for large batches, and once after it was full."""
        ways = self._ways
        large = ways.shrink_above_rows is not None and rows > ways.shrink_above_rows
        if ways.shrink is None or not self._may_shrink or not (large or self._shrink_next):
            return ways.plain
        self._shrink_next = False
        return ways.shrink

    def _run_error(self, error: Exception) -> ScoringError:
        kind, reason = kind_of(error), one_line(error)
        if kind is Kind.DEVICE_LOST:
            self._note_lost(self.device, reason)
        if kind is Kind.DEVICE_MEMORY:
            self._shrink_next = True
        return ScoringError(kind, f"{self._model}: {reason}")


def _first(slot: Slot, stage: PixelStage | None) -> Slot:
    """The slot that a batch is put into, of the slot that the model reads."""
    return slot if stage is None else stage.slots[slot.number]

"""What an opened ONNX session needs before its first batch: bound memory, run options, captured graphs."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from accelserve.backends.base import Device, SessionOptions
from accelserve.backends.cuda.probe import LoadLibrary
from accelserve.backends.onnx_runtime.binding import Slot, SlotPool, layout_of, why_unbound
from accelserve.backends.onnx_runtime.cuda_graphs import NO_GRAPH, CaptureGate, GraphThread, capture
from accelserve.backends.onnx_runtime.errors import kind_of
from accelserve.backends.onnx_runtime.memory import CudaMemory, HostMemory, Memory
from accelserve.backends.onnx_runtime.options import OnnxOptions, device_index
from accelserve.backends.onnx_runtime.row_by_row import gains_row_by_row
from accelserve.backends.onnx_runtime.session import RunWays, Settled
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature

_SHRINK = "memory.enable_memory_arena_shrinkage"
_GRAPH = "gpu_graph_id"


@dataclass(frozen=True, slots=True)
class Residence:
    """Makes them for one model. runtime, loader: the library and ctypes.CDLL, or who plays them.

    captures: shared by all sessions of the process, since a capture must be alone.
    """

    runtime: Any
    loader: LoadLibrary
    captures: CaptureGate
    model: str
    device: Device
    options: OnnxOptions

    def settle(self, session: Any, signature: Signature, asked: SessionOptions, slots: int) -> Settled:
        """Bind memory, find out how the library is called, warm or capture.

        session: the library's. slots: batches that may be in flight. Raises ScoringError(PRECONDITION) for graphs that
        cannot be, and what the library or CUDA raises; what was opened is closed again.
        """
        unbound = why_unbound(signature) if self.options.binds(self.device) else ""
        if self.options.cuda_graphs and self.on_gpu:
            self._check_graphs(signature, asked, unbound)
        if unbound or not self.options.binds(self.device):
            remarks: tuple[str, ...] = (f"runs without bound memory: {unbound}",) if unbound else ()
            apart = not self.on_gpu and gains_row_by_row(session.run, signature, asked.max_batch_size)
            if apart:
                remarks += ("runs a batch row by row: that is faster on this processor",)
            return Settled(None, self._ways(), remarks, apart)
        rows = asked.max_batch_size if signature.batched else 1
        memory = self._memory()
        try:
            with self.captures.shared():
                pool = SlotPool(session, layout_of(signature, session), memory, rows, slots)
            if not (self.options.cuda_graphs and self.on_gpu):
                self.warm(session, tuple(pool), rows)
                return Settled(pool, self._ways())
            return Settled(pool, self._graph_ways(session, pool, asked.batch_sizes))
        except BaseException:
            memory.close()
            raise

    def warm(self, session: Any, slots: Sequence[Slot], rows: int) -> None:
        """Run all slots at once, on zeros, the largest batch in each.

        For each run that overlaps another ONNX Runtime makes streams, handles and workspace: at the first request, or
        here. What the model says to zeros is no matter; a device that is full or lost is: raises what the library does.
        """
        if len(slots) < 2:
            return

        def run(slot: Slot) -> Exception | None:
            try:
                with self.captures.shared():
                    slot.to_device(rows)
                    session.run_with_iobinding(slot.binding(rows))
            except Exception as error:
                return error
            return None

        with ThreadPoolExecutor(len(slots)) as threads:
            for error in threads.map(run, slots):
                if error is not None and kind_of(error) in (Kind.DEVICE_MEMORY, Kind.DEVICE_LOST):
                    raise error

    @property
    def on_gpu(self) -> bool:
        return self.device.kind is DeviceKind.GPU

    def _memory(self) -> Memory:
        return CudaMemory(device_index(self.device), self.loader) if self.on_gpu else HostMemory()

    def _ways(self) -> RunWays:
        shrink = self._run_options(_SHRINK, self.device.id)
        above = self.options.arena_shrink_above_rows
        if not self.on_gpu:
            return RunWays(shrink=shrink, shrink_above_rows=above)
        return RunWays(self.captures.shared, shrink=shrink, shrink_above_rows=above)

    def _graph_ways(self, session: Any, pool: SlotPool, sizes: tuple[int, ...]) -> RunWays:
        thread = GraphThread(self.model)
        try:
            graphs = capture(session, pool, sizes, self._graph_options, thread, self.captures)
        except BaseException:
            thread.close()
            raise
        return RunWays(self.captures.shared, thread.call, thread.close, self._graph_options(NO_GRAPH), graphs=graphs)

    def _graph_options(self, number: int) -> Any:
        return self._run_options(_GRAPH, str(number))

    def _run_options(self, key: str, value: str) -> Any:
        made = self.runtime.RunOptions()
        made.add_run_config_entry(key, value)
        return made

    def _check_graphs(self, signature: Signature, asked: SessionOptions, unbound: str) -> None:
        reason = unbound
        if not signature.batched:
            reason = reason or "the signature has no batch axis"
        elif not asked.batch_sizes:
            reason = reason or "[batching] allowed_batch_sizes is not set, and a graph is captured for each size"
        if reason:
            raise ScoringError(Kind.PRECONDITION, f"{self.model} cannot have cuda_graphs: {reason}")

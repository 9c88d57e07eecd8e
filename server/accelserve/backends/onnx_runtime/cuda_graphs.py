"""CUDA graphs of ONNX Runtime: whose thread may capture and replay them, and what must rest meanwhile.

By its source (core/providers/cuda/cuda_execution_provider.cc, cuda_graph.cc, core/session/inference_session.cc):
- Captured graphs lie in the provider's per-thread context: a graph captured on one thread does not exist for another,
  which would silently capture again. So one thread of the session's own captures and replays: `GraphThread`.
- The run option `gpu_graph_id` names the graph; -1 runs without one. A first `Run` under a new id runs twice, to let
  the arena grow, and captures; from then on `Run` only launches the graph, on the addresses and shapes of the capture.
- Capturing is `cudaStreamCaptureModeGlobal`: while it lasts, cudaMalloc, synchronous copies and waits on streams of
  any thread of the process fail with error 900 and spoil the capture. So captures wait for the runs of all sessions
  and hold them back: `CaptureGate`.
- Workspace that a graph uses is free memory in the arena's books. A shrunken arena would take it away, so sessions with
  graphs never shrink theirs.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from accelserve.backends.onnx_runtime.binding import SlotPool

T = TypeVar("T")

NO_GRAPH = -1  # gpu_graph_id of a run without a graph (kCudaGraphAnnotationSkip)


def graph_id(rows: int, slot: int, slots: int) -> int:
    """A number of its own for each batch size and slot, from 1 on; 0 is the library's default graph."""
    return rows * slots + slot


class CaptureGate:
    """Runs share it; a capture has it alone. Runs that come while a capture waits are let through after it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._captures = 0
        self._capturing = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._captures)
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._captures += 1
            self._changed.wait_for(lambda: not self._running and not self._capturing)
            self._capturing = True
        try:
            yield
        finally:
            with self._changed:
                self._captures -= 1
                self._capturing = False
                self._changed.notify_all()


class GraphThread:
    """The one thread on which a session with graphs runs."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"{name}-graphs")

    def call(self, function: Callable[[Any], T], options: Any) -> T:
        """Call it there with the run options, and wait; raises what it raises."""
        return self._thread.submit(function, options).result()

    def close(self) -> None:
        self._thread.shutdown()


def capture(
    session: Any,
    slots: SlotPool,
    sizes: Sequence[int],
    run_options: Callable[[int], Any],
    thread: GraphThread,
    gate: CaptureGate,
) -> dict[tuple[int, int], Any]:
    """Capture a graph for each size in each slot; the run options that replay it, by (rows, slot number).

    run_options: makes the library's RunOptions for a `gpu_graph_id`. Raises what the library raises.
    """
    made = {}
    for rows in sizes:
        for slot in slots:
            options = run_options(graph_id(rows, slot.number, len(slots)))
            with gate.alone():
                slot.to_device(rows)  # zeros: what happens to lie there may be no index of any table
                thread.call(partial(session.run_with_iobinding, slot.binding(rows)), options)
            made[rows, slot.number] = options
    return made

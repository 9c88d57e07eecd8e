"""ONNX Runtime without our code: the best that the library does in a process of its own, as the mark."""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from accelserve.cpus import usable_cpus

CUDA = "CUDAExecutionProvider"
CUDART = "libcudart.so.13"
GRAPH_ID = "gpu_graph_id"  # of the graph that a run captures or replays; one for each batch size


@dataclass(frozen=True, slots=True)
class Way:
    """How the library is used. bound: buffers on the device that stay; copies: rows go in and answers come out."""

    name: str
    options: Mapping[str, str]
    bound: bool = True
    copies: bool = True

    @property
    def graphs(self) -> bool:
        return "enable_cuda_graph" in self.options


WAYS = (
    Way("run", {}, bound=False),
    Way("IOBinding, pinned", {}),
    Way("IOBinding, nothing copied", {}, copies=False),
    Way("IOBinding, pinned, NHWC", {"prefer_nhwc": "1"}),
    Way("CUDA graph, pinned", {"enable_cuda_graph": "1"}),
    Way("CUDA graph, pinned, NHWC", {"enable_cuda_graph": "1", "prefer_nhwc": "1"}),
)


def open_session(path: Path, device: str, options: Mapping[str, str]) -> ort.InferenceSession:
    """On the GPU and nowhere else, or on the CPU. Raises RuntimeError where the library took the CPU instead."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = usable_cpus()  # left to itself it takes all cores of the machine
    if device == "cpu":
        return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    chosen = {"device_id": device.partition(":")[2] or "0", **options}
    session = ort.InferenceSession(str(path), settings, providers=[(CUDA, chosen)], enable_fallback=False)
    session.disable_fallback()
    if session.get_providers()[0] != CUDA:
        raise RuntimeError(f"ONNX Runtime took {session.get_providers()[0]} instead of {CUDA}")
    return session


class Bound:
    """Fixed buffers of one batch size, and the way through them: host, device, run, device, host."""

    def __init__(self, session: ort.InferenceSession, rows: NDArray[Any], way: Way, device: str) -> None:
        self._session = session
        self._rows = rows
        self._copies = way.copies
        self.pinned = device != "cpu" and pin(rows)
        kind, number = ("cpu", 0) if device == "cpu" else ("cuda", int(device.partition(":")[2] or 0))
        output = session.get_outputs()[0]
        self._input = ort.OrtValue.ortvalue_from_numpy(rows.copy(), kind, number)
        self._output = ort.OrtValue.ortvalue_from_shape_and_type([len(rows), output.shape[1]], np.float32, kind, number)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input("x", self._input)
        self._binding.bind_ortvalue_output(output.name, self._output)
        self._options = ort.RunOptions()
        if way.graphs:
            self._options.add_run_config_entry(GRAPH_ID, str(len(rows)))

    def run(self) -> NDArray[Any] | None:
        if self._copies:
            self._input.update_inplace(self._rows)
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        return self._output.numpy() if self._copies else None

    def close(self) -> None:
        if self.pinned:
            unpin(self._rows)


def plain(session: ort.InferenceSession, rows: NDArray[Any]) -> Callable[[], object]:
    return lambda: session.run(None, {"x": rows})


def pin(array: NDArray[Any]) -> bool:
    """Page-lock an array's memory for the GPU's copies; False where CUDA does not let us."""
    try:
        runtime = ctypes.CDLL(CUDART)
    except OSError:
        return False
    return not runtime.cudaHostRegister(ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes), 0)


def unpin(array: NDArray[Any]) -> None:
    ctypes.CDLL(CUDART).cudaHostUnregister(ctypes.c_void_p(array.ctypes.data))

"""The ONNX back end on a host with two played GPUs, and how its sessions are asked."""

from pathlib import Path

import numpy as np
from played_cuda import THE_GPU, Cudart, PlayedRuntime, gpu_host

from accelserve.backends.base import Batch, Device, ModelArtifact, SessionOptions
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend

SIZES = (1, 4)
OUT_OF_MEMORY = RuntimeError("BFCArena: Available memory of 1 is smaller than requested bytes of 1024")


class Gpu:
    """A host with two played GPUs, and the back end on it."""

    def __init__(self, **libraries: object) -> None:
        self.cudart = Cudart()
        self.runtime = PlayedRuntime(cudart=self.cudart)
        self.backend = OnnxRuntimeBackend(self.runtime, gpu_host(self.cudart, ("T4", "T4"), **libraries))
        self.sessions: list = []
        self.loading_runs: list = []

    def load(self, path: Path, device: Device = THE_GPU, cache=None, sizes=(), **extra):
        options = SessionOptions(max_batch_size=4, batch_sizes=sizes, extra=extra)
        artifact = ModelArtifact("m", 3, "onnx", path)
        prepared = self.backend.prepare(artifact, device, options, cache, lambda what, done: None)
        self.sessions.append(self.backend.load(prepared, device, options, None))
        self.loading_runs, self.runtime.runs = self.runtime.runs, []
        return self.sessions[-1]


def floats(*values: float) -> np.ndarray:
    return np.array([[value] for value in values], np.float32)


def ask(session, x: np.ndarray) -> np.ndarray:
    return session.run(Batch("serving_default", {"x": x}, ("y",), len(x))).outputs["y"]


def shrinks(options) -> str | None:
    try:
        return options.get_run_config_entry("memory.enable_memory_arena_shrinkage")
    except (AttributeError, RuntimeError):
        return None

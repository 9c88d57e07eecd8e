"""What keeps the installed ONNX Runtime from a GPU: its build, the driver, CUDA's libraries, TensorRT's."""

import ctypes
import logging
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

from accelserve.backends.base import Device
from accelserve.backends.cuda.probe import (
    TENSORRT_LIBRARIES,
    CudaReport,
    LoadLibrary,
    explain_gpu,
    find_devices,
    missing_libraries,
)
from accelserve.backends.onnx_runtime.options import CUDA, TENSORRT
from accelserve.devices import DeviceKind
from accelserve.installed import installed_versions

logger = logging.getLogger("accelserve.backends")

_CUDA_OF_THE_WHEEL = "13.0"  # of onnxruntime-gpu 1.31, for a build that does not say
_TENSORRT_FOLDER = "tensorrt_libs"  # the Python package that holds TensorRT's libraries; no loader path names it


class OnnxGpu:
    """runtime, loader, find: the library, ctypes.CDLL and importlib's find_spec, or who plays them in tests."""

    def __init__(
        self, runtime: Any, loader: LoadLibrary = ctypes.CDLL, find: Callable[[str], Any | None] = find_spec
    ) -> None:
        self._runtime = runtime
        self._loader = loader
        self._find = find
        self._preloaded = False

    def devices(self) -> tuple[tuple[Device, ...], tuple[str, ...]]:
        """The GPUs that can be used, or all that is missing."""
        build = self._build_gap()
        found = find_devices(self._loader, getattr(self._runtime, "cuda_version", "") or _CUDA_OF_THE_WHEEL)
        missing = explain_gpu(build, found, () if build else self._library_gaps())
        return ((), missing) if missing else (_as_devices(found), ())

    def tensorrt_gaps(self) -> tuple[str, ...]:
        """What TensorRT lacks beside CUDA; loads its libraries, where they are."""
        if TENSORRT not in self._runtime.get_available_providers():
            return (f"onnxruntime {self._runtime.__version__} is built without the TensorRT provider",)
        self._preload()
        return missing_libraries(self._load_tensorrt, TENSORRT_LIBRARIES, "TensorRT library")

    def features(self) -> Mapping[str, tuple[str, ...]]:
        converter = () if self._find("onnx") else ("python package 'onnx' is not installed: pip install onnx",)
        return {"TensorRT": self.tensorrt_gaps(), "fp16": converter}

    def _build_gap(self) -> str:
        """What is wrong with the installed build. `get_available_providers` lists what was built, not what works."""
        if CUDA in self._runtime.get_available_providers():
            return ""
        if len(installed_versions(("onnxruntime", "onnxruntime-gpu"))) == 2:
            return "onnxruntime overwrote onnxruntime-gpu: uninstall both, then pip install 'accelserve[gpu]'"
        return f"onnxruntime-gpu is not installed (the CPU build onnxruntime {self._runtime.__version__} is)"

    def _library_gaps(self) -> tuple[str, ...]:
        self._preload()
        return missing_libraries(self._loader)

    def _preload(self) -> None:
        """Load the CUDA libraries of the nvidia-* Python packages, which no loader path names; once.

        It prints what it does not find, in the middle of whatever the command prints; `missing_libraries` tells it.
        """
        preload = getattr(self._runtime, "preload_dlls", None)
        if preload is not None and not self._preloaded:
            self._preloaded = True
            try:
                with redirect_stdout(StringIO()):
                    preload()
            except Exception as error:
                logger.warning("onnxruntime.preload_dlls failed: %s", error)

    def _load_tensorrt(self, name: str) -> Any:
        """By its name, else from the Python package: once loaded, the provider finds it by its name."""
        try:
            return self._loader(name)
        except OSError:
            package = self._find(_TENSORRT_FOLDER)
            folders = getattr(package, "submodule_search_locations", None) or ()
            for folder in folders:
                if (Path(folder) / name).is_file():
                    return self._loader(str(Path(folder) / name))
            raise


def _as_devices(found: CudaReport) -> tuple[Device, ...]:
    return tuple(Device(f"gpu:{d.index}", DeviceKind.GPU, d.name, d.memory_bytes) for d in found.devices)

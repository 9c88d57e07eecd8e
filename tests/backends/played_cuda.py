"""A host with GPUs, played: NVIDIA's libraries in host memory, and ONNX Runtime's CUDA build on top of its CPU build.

What the code under test may not do on a GPU is an error here too: a copy takes effect when its stream is waited for,
an address belongs to one device, and a library's call acts on the thread's current device.
"""

import ctypes
import threading
from types import SimpleNamespace

import onnxruntime

from accelserve.backends.base import Device
from accelserve.backends.cuda.probe import DRIVER, LIBRARIES
from accelserve.backends.onnx_runtime.options import CPU, CUDA, TENSORRT
from accelserve.devices import DeviceKind

GIB = 2**30
CUDA_OUT_OF_MEMORY = 2
THE_GPU = Device("gpu:0", DeviceKind.GPU, "NVIDIA T4")
SECOND_GPU = Device("gpu:1", DeviceKind.GPU, "NVIDIA T4")


class Driver:
    """Plays libcuda: what cuInit answers, the version that it speaks, and the GPUs that it counts."""

    def __init__(self, init: int = 0, gpus: tuple[str, ...] = (), version: int = 13000) -> None:
        self._init = init
        self._gpus = gpus
        self._version = version

    def cuDriverGetVersion(self, version):
        version._obj.value = self._version
        return 0

    def cuInit(self, flags):
        return self._init

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self._gpus)
        return 0

    def cuDeviceGet(self, handle, index):
        handle._obj.value = index
        return 0

    def cuDeviceGetName(self, name, length, handle):
        name.value = self._gpus[handle.value].encode()
        return 0

    def cuDeviceTotalMem_v2(self, memory, handle):
        memory._obj.value = 16 * GIB
        return 0

    def cuDeviceGetPCIBusId(self, bus, length, handle):
        bus.value = f"0000:{handle.value + 0x10:02x}:00.0".encode()
        return 0


class Cudart:
    """Plays libcudart. device: address -> (device, bytes); host: the page-locked ones; allocations: calls of both."""

    def __init__(self) -> None:
        self.device: dict[int, tuple[int, ctypes.Array]] = {}
        self.host: dict[int, ctypes.Array] = {}
        self.allocations = 0
        self.streams: dict[int, int] = {}
        self.fail_next_malloc = 0
        self.lost = 0
        self._pending: dict[int, list] = {}
        self._thread = threading.local()
        self.cudaGetErrorString = _error_string

    @property
    def current(self) -> int:
        return getattr(self._thread, "device", 0)

    def cudaSetDevice(self, index):
        self._thread.device = index
        return self.lost

    def cudaHostAlloc(self, address, size, flags):
        return self._allocate(address, size, lambda at, room: self.host.__setitem__(at, room))

    def cudaMalloc(self, address, size):
        if self.fail_next_malloc:
            code, self.fail_next_malloc = self.fail_next_malloc, 0
            return code
        return self._allocate(address, size, lambda at, room: self.device.__setitem__(at, (self.current, room)))

    def _allocate(self, address, size, keep):
        room = ctypes.create_string_buffer(b"\xff" * size.value, size.value)  # whatever lay there before: not zeros
        self.allocations += 1
        address._obj.value = ctypes.addressof(room)
        keep(ctypes.addressof(room), room)
        return 0

    def cudaFreeHost(self, address):
        del self.host[address.value]
        return 0

    def cudaFree(self, address):
        del self.device[address.value]
        return 0

    def cudaStreamCreateWithFlags(self, stream, flags):
        stream._obj.value = len(self.streams) + 1
        self.streams[stream._obj.value] = self.current
        self._pending[stream._obj.value] = []
        return 0

    def cudaStreamDestroy(self, stream):
        del self.streams[stream.value]
        return 0

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        device, host = (to, source) if kind == 1 else (source, to)
        assert self.device[device.value][0] == self.current == self.streams[stream.value], "an address of another GPU"
        assert host.value in self.host, "a copy from memory that is not page-locked is not asynchronous"
        self._pending[stream.value].append((to.value, source.value, size.value))
        return self.lost

    def cudaStreamSynchronize(self, stream):
        for copy in self._pending[stream.value]:
            ctypes.memmove(*copy)
        self._pending[stream.value] = []
        return self.lost

    def cudaGetLastError(self):
        return 0


def _error_string(code):
    """A function, not a method: ctypes' functions take attributes (`restype`)."""
    return {2: b"out of memory"}.get(code, b"unspecified launch failure")


def host(libraries: dict[str, object]):
    """Plays ctypes.CDLL on a host that has only these libraries; an OSError among them is raised."""

    def load(name: str) -> object:
        found = libraries.get(name, OSError(f"{name}: cannot open shared object file: No such file or directory"))
        if isinstance(found, OSError):
            raise found
        return found

    return load


def gpu_host(cudart: Cudart | None = None, gpus: tuple[str, ...] = ("NVIDIA T4",), **others: object):
    """A host with a driver, GPUs and all of CUDA's libraries. others: more libraries, dots written as "__"."""
    libraries = dict.fromkeys(LIBRARIES, object())
    libraries |= {name.replace("__", "."): library for name, library in others.items()}
    return host({DRIVER: Driver(gpus=gpus), **libraries, "libcudart.so.13": cudart or Cudart()})


class PlayedRuntime:
    """Plays the CUDA build: its sessions compute on the CPU, from and to the addresses that are bound on "cuda".

    providers: what a session says it got, None for what it was asked for. failure: raised when one is opened.
    opened: how each was asked for; entries: the last one's configuration. run_failures: raised by the next runs, one
    each. runs: (thread's name, run options) of each run.
    """

    __version__ = "1.31.1"
    cuda_version = "13.0"
    GraphOptimizationLevel = onnxruntime.GraphOptimizationLevel
    RunOptions = onnxruntime.RunOptions

    def __init__(self, providers=None, failure: Exception | None = None, cudart: Cudart | None = None) -> None:
        self.opened: list[dict] = []
        self.entries: dict[str, str] = {}
        self.preloaded = 0
        self.on_host: set[str] = set()  # inputs and outputs that the graph has on the CPU
        self.run_failures: list[Exception] = []
        self.before_run = lambda: None
        self.runs: list[tuple[str, object]] = []
        self.unbound_runs = 0
        self.left_on: list[tuple[str, int]] = []  # where runs left outputs in memory of the library's own
        self.runs_nodes = ""  # the provider that all nodes are said to be on, "" for a session's first
        self.cudart = cudart
        self.built = [TENSORRT, CUDA, CPU]
        self._providers = providers
        self._failure = failure

    def get_available_providers(self):
        return self.built

    def preload_dlls(self):
        self.preloaded += 1

    def SessionOptions(self):
        return SimpleNamespace(add_session_config_entry=self.entries.__setitem__)

    def InferenceSession(self, path, options, **how):
        self.opened.append(how)
        if self._failure is not None:
            raise self._failure
        return PlayedSession(self, path, self._providers or [name for name, _ in how["providers"]])

    def note_run(self, options) -> None:
        self.before_run()
        self.runs.append((threading.current_thread().name, options))
        if self.run_failures:
            raise self.run_failures.pop(0)

    def graph_ids(self) -> list[str]:
        return [options.get_run_config_entry("gpu_graph_id") for _, options in self.runs]


class PlayedSession:
    def __init__(self, runtime: PlayedRuntime, path: str, providers: list[str]) -> None:
        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 4
        self.real = onnxruntime.InferenceSession(path, quiet, providers=[CPU])
        self.runtime = runtime
        self.get_providers = lambda: providers
        self.get_inputs = self.real.get_inputs
        self.get_outputs = self.real.get_outputs

    def disable_fallback(self):
        self.real.disable_fallback()

    def get_provider_graph_assignment_info(self):
        provider = self.runtime.runs_nodes or self.get_providers()[0]
        return [SimpleNamespace(ep_name=provider, get_nodes=lambda: [SimpleNamespace(op_type="Identity")])]

    def get_input_memory_infos(self):
        return self._places(self.get_inputs())

    def get_output_memory_infos(self):
        return self._places(self.get_outputs())

    def _places(self, args):
        return [SimpleNamespace(name="Cpu" if arg.name in self.runtime.on_host else "Cuda") for arg in args]

    def io_binding(self):
        return PlayedBinding(self.real.io_binding(), self.runtime)

    def run_with_iobinding(self, binding, options=None):
        self.runtime.note_run(options)
        self.real.run_with_iobinding(binding.real)

    def run(self, outputs, feed, options=None):
        self.runtime.unbound_runs += 1
        self.runtime.note_run(options)
        return self.real.run(outputs, feed)

    def run_with_ort_values(self, outputs, feed, options=None):
        self.runtime.unbound_runs += 1
        self.runtime.note_run(options)
        return self.real.run_with_ort_values(outputs, feed)


class PlayedBinding:
    """Binds on the CPU what is bound on "cuda", if that GPU has memory there."""

    def __init__(self, real, runtime: PlayedRuntime) -> None:
        self.real = real
        self.bind_cpu_input = real.bind_cpu_input
        self.get_outputs = real.get_outputs
        self._runtime = runtime

    def bind_input(self, name, kind, index, dtype, shape, address):
        self._look(kind, index, address)
        self.real.bind_input(name, "cpu", 0, dtype, shape, address)

    def bind_output(self, name, kind, index, dtype=None, shape=None, address=None):
        if address is None:
            self._runtime.left_on.append((kind, index))
        else:
            self._look(kind, index, address)
        self.real.bind_output(name, "cpu", 0, dtype, shape, address)

    def _look(self, kind, index, address):
        if kind == "cuda":
            assert self._runtime.cudart.device[address][0] == index, "bound on a GPU that has no such memory"
        else:
            assert (kind, index) == ("cpu", 0)

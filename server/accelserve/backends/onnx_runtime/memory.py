"""Memory that an ONNX session is bound to: the host's own, or a GPU's through CUDA's runtime library.

`HostMemory` and `CudaMemory` are the same to their user: a host array, the address where the model reads or writes the
values, and a stream that moves them between the two. On the host the two are one and nothing moves.

CUDA here is libcudart through ctypes (which gives up the GIL in each call). ONNX Runtime's Python API offers device
memory (`OrtValue.ortvalue_from_shape_and_type(..., "cuda")`, from an arena that is never given back) but no page-locked
memory for a session's built-in CUDA provider, and its copies (`update_inplace`, `numpy()`) are synchronous, on the
default stream.
"""

import ctypes
import weakref
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from accelserve.backends.cuda.probe import LoadLibrary
from accelserve.tensors import Shape, Tensor

CUDART = "libcudart.so.13"
_PORTABLE = 1  # cudaHostAllocPortable: page-locked for every device's context
_NON_BLOCKING = 1  # cudaStreamNonBlocking: does not wait for the default stream
_TO_DEVICE, _TO_HOST = 1, 2  # cudaMemcpyKind


class Stream(Protocol):
    """Moves values in order, beside other streams. The calls only ask for it; `wait` returns when it is done."""

    def to_device(self, address: int, host: Tensor) -> None: ...

    def to_host(self, host: Tensor, address: int) -> None: ...

    def wait(self) -> None: ...


class Memory(Protocol):
    """device_type, device_id: as ONNX Runtime's IOBinding names the place of `device_buffer`'s addresses."""

    device_type: str
    device_id: int

    def host_array(self, shape: Shape, dtype: npt.DTypeLike) -> Tensor:
        """Zeros; the memory lives as long as the array or a view of it."""
        ...

    def device_buffer(self, host: Tensor) -> int:
        """Address of room for as many bytes; lives until `close`."""
        ...

    def stream(self) -> Stream: ...

    def close(self) -> None: ...


class HostMemory:
    """Of the CPU provider: the model reads and writes the host arrays themselves."""

    device_type = "cpu"
    device_id = 0

    def host_array(self, shape: Shape, dtype: npt.DTypeLike) -> Tensor:
        return np.zeros(shape, dtype)

    def device_buffer(self, host: Tensor) -> int:
        return host.ctypes.data

    def stream(self) -> Stream:
        return _NothingMoves()

    def close(self) -> None:
        """Nothing to free: the arrays do it."""


class _NothingMoves:
    def to_device(self, address: int, host: Tensor) -> None: ...

    def to_host(self, host: Tensor, address: int) -> None: ...

    def wait(self) -> None: ...


class CudaError(RuntimeError):
    """A call of CUDA's runtime failed. The text begins as ONNX Runtime's own does, "CUDA failure 2: ...".

    `errors` tells by it whose fault it is.
    """


class CudaMemory:
    """Page-locked host memory, device memory and streams of one GPU.

    Every entry sets the device first: CUDA keeps the current device per thread. Raises CudaError.
    """

    device_type = "cuda"

    def __init__(self, device_id: int, loader: LoadLibrary = ctypes.CDLL) -> None:
        self.device_id = device_id
        self._cudart = loader(CUDART)
        self._buffers: list[int] = []
        self._streams: list[_CudaStream] = []

    def host_array(self, shape: Shape, dtype: npt.DTypeLike) -> Tensor:
        self._enter()
        wanted = np.dtype(dtype)
        nbytes = _nbytes(shape, wanted)
        address = ctypes.c_void_p()
        self._check(self._cudart.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(nbytes), _PORTABLE))
        array: Tensor = np.asarray(_Pinned(address.value or 0, shape, wanted, self._cudart.cudaFreeHost))
        array[...] = 0
        return array

    def device_buffer(self, host: Tensor) -> int:
        self._enter()
        address = ctypes.c_void_p()
        self._check(self._cudart.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(max(host.nbytes, 1))))
        self._buffers.append(address.value or 0)
        return self._buffers[-1]

    def stream(self) -> Stream:
        self._enter()
        handle = ctypes.c_void_p()
        self._check(self._cudart.cudaStreamCreateWithFlags(ctypes.byref(handle), _NON_BLOCKING))
        self._streams.append(_CudaStream(self._cudart, handle, self._enter, self._check))
        return self._streams[-1]

    def close(self) -> None:
        """Free streams and device memory; nothing may use them any more. Errors are those of a lost device: no news."""
        self._cudart.cudaSetDevice(self.device_id)
        for stream in self._streams:
            self._cudart.cudaStreamDestroy(stream.handle)
        for address in self._buffers:
            self._cudart.cudaFree(ctypes.c_void_p(address))
        self._streams, self._buffers = [], []

    def _enter(self) -> None:
        self._check(self._cudart.cudaSetDevice(self.device_id))

    def _check(self, code: int) -> None:
        if not code:
            return
        self._cudart.cudaGetLastError()  # an error that is not sticky would be reported again by somebody else's call
        text = self._cudart.cudaGetErrorString
        text.restype = ctypes.c_char_p
        raise CudaError(f"CUDA failure {code}: {text(code).decode()}")


class _CudaStream:
    def __init__(self, cudart: Any, handle: Any, enter: Callable[[], None], check: Callable[[int], None]) -> None:
        self.handle = handle
        self._cudart = cudart
        self._enter = enter
        self._check = check

    def to_device(self, address: int, host: Tensor) -> None:
        self._copy(address, host.ctypes.data, host.nbytes, _TO_DEVICE)

    def to_host(self, host: Tensor, address: int) -> None:
        self._copy(host.ctypes.data, address, host.nbytes, _TO_HOST)

    def wait(self) -> None:
        self._enter()
        self._check(self._cudart.cudaStreamSynchronize(self.handle))

    def _copy(self, to: int, source: int, nbytes: int, kind: int) -> None:
        self._enter()
        copy = self._cudart.cudaMemcpyAsync
        self._check(copy(ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(nbytes), kind, self.handle))


class _Pinned:
    """Page-locked memory for numpy, freed when the last array on it is gone."""

    def __init__(self, address: int, shape: Shape, dtype: np.dtype[Any], free: Callable[[Any], int]) -> None:
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": dtype.str,
            "data": (address, False),
        }
        weakref.finalize(self, free, ctypes.c_void_p(address))


def _nbytes(shape: Shape, dtype: np.dtype[Any]) -> int:
    return max(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize, 1)

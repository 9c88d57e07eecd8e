"""ONNX Runtime's exceptions in the project's words: whose fault a failed run is, and one readable line of reason."""

import re

from accelserve.errors import Kind

# CUDA runtime errors after which the context is gone and every later call fails with the same error: 46 (devices
# unavailable), 214 (ECC), 226/227 and 700 to 720 without 704/705 (peer access) and 708/709, 999 (unknown).
# Source: CUDA Runtime API, "Error handling".
_LOST = re.compile(
    r"(?:CUDA|CUDNN|CUBLAS)\s+(?:failure|error)\s+(?:46|214|226|227|70[0-367]|71[0-9]|720|999)\b"
    r"|device-side assert|unspecified launch failure|illegal memory access|GPU (?:is lost|has fallen off)"
    r"|cudaError(?:IllegalAddress|LaunchFailure|Assert|DevicesUnavailable|ECCUncorrectable)",
    re.IGNORECASE,
)
_MEMORY = re.compile(
    r"CUDA failure 2\b|out of memory|Available memory of \d+ is smaller|Failed to allocate memory|bad_alloc"
    r"|ALLOC_FAILED|cudaErrorMemoryAllocation",
    re.IGNORECASE,
)
# A graph's operator that meets a shape it cannot work with reports FAIL or RUNTIME_EXCEPTION, not INVALID_ARGUMENT.
_SHAPE = re.compile(
    r"cannot be reshaped|shape mismatch|dimensions? mismatch|[Ii]ncompatible dimensions|[Uu]nequal (?:rank|dim)"
    r"|[Aa]ttempting to broadcast|out of (?:data )?bounds|[Ii]nvalid (?:rank|dimensions)"
)
# A preallocated output of another shape than the graph computes: found before the node runs, or by the node.
_OUTPUT_SHAPE = re.compile(r"invalid dimensions for output|output OrtValue provided for output")
_INPUT_EXCEPTIONS = frozenset({"InvalidArgument", "ValueError", "TypeError"})
_UNCONVERTIBLE = re.compile(r"can't be converted to MLDataType|Input must be a list of dictionaries")

# Why a model does not load, in ONNX Runtime's words, and what to do about it; the first that matches.
_REMEDIES = (
    (
        r"No Op registered for \w+ with domain_version|is not a registered function/op|No opset import for domain",
        "this ONNX Runtime has no such operator: export the model with standard ONNX operators of its opset",
    ),
    (
        r"Opset \d+ is under development",
        "the model is newer than this ONNX Runtime: export it with an older opset or install a newer ONNX Runtime",
    ),
    (
        r"Unsupported model IR version",
        "the model is newer than this ONNX Runtime: save it with an older onnx package or install a newer ONNX Runtime",
    ),
    (
        r"External data path|External initializer: .* out of bounds|GetFileLength|external data",
        "the weights lie in a file beside the model: copy it along, whole and under its own name",
    ),
    (
        r"Protobuf parsing failed|No graph was found in the protobuf|ModelProto does not have a graph",
        "the file is no ONNX model, or only a part of one (an unfinished download, a Git LFS pointer): fetch it again",
    ),
    (
        r"all the graph nodes have not been assigned",
        "a CUDA graph needs every node on the GPU: leave cuda_graphs out; `accelserve show` counts the nodes",
    ),
    (
        r"fallback to CPU EP has been explicitly disabled",
        "strict_placement is set and the GPU has no kernel for some node: leave it out; `accelserve show` counts them",
    ),
    (
        r"no kernel image is available|cudaErrorNoKernelImageForDevice|CUDA failure 209",
        "this onnxruntime-gpu has no code for this GPU's generation: install a build that has",
    ),
    (
        r"CUDA failure 35\b|driver version is insufficient",
        "the NVIDIA driver is older than the CUDA of onnxruntime-gpu: install a newer driver",
    ),
)

_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_SOURCE = re.compile(r"/onnxruntime_src/\S+:\d+ ")
_LOADING = re.compile(r"Load model from \S+ failed:\s*")
_LONGEST = 400


def kind_of(error: Exception) -> Kind:
    """INVALID (the input is at fault), DEVICE_LOST, DEVICE_MEMORY or INTERNAL, from exception class and message."""
    text = str(error)
    if _LOST.search(text):
        return Kind.DEVICE_LOST
    if _MEMORY.search(text) or isinstance(error, MemoryError):
        return Kind.DEVICE_MEMORY
    if type(error).__name__ in _INPUT_EXCEPTIONS or _SHAPE.search(text) or _UNCONVERTIBLE.search(text):
        return Kind.INVALID
    return Kind.INTERNAL


def is_of_bound_output(error: Exception) -> bool:
    """Whether a run failed because the memory bound for an output has another shape than the output."""
    return bool(_OUTPUT_SHAPE.search(str(error)))


def one_line(error: Exception) -> str:
    """The reason without ONNX Runtime's decoration, its source paths and line breaks, cut to a readable length."""
    text = _LOADING.sub("", _SOURCE.sub("", _PREFIX.sub("", str(error))))
    text = " ".join(text.replace("Please fix either the inputs/outputs or the model.", "").split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def remedy(error: Exception) -> str:
    """What to do about a model that does not load, "" when nobody knows."""
    text = str(error)
    return next((words for pattern, words in _REMEDIES if re.search(pattern, text)), "")

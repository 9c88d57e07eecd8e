"""Which of the project's own back ends can be used here: cheap questions, nothing heavy is imported."""

from collections.abc import Callable
from importlib.util import find_spec

from accelserve.backends.base import Offer
from accelserve.devices import DeviceKind

Finder = Callable[[str], object | None]


def onnx_runtime(find: Finder = find_spec) -> Offer:
    """ONNX models on the CPU and on NVIDIA GPUs."""
    return Offer(
        name="onnx_runtime",
        formats=frozenset({"onnx"}),
        device_kinds=frozenset({DeviceKind.CPU, DeviceKind.GPU}),
        backend="accelserve.backends.onnx_runtime.backend:OnnxRuntimeBackend",
        unavailable=_unless_installed("onnxruntime", "'accelserve[cpu]' or 'accelserve[gpu]'", find),
    )


def tf_session(find: Finder = find_spec) -> Offer:
    """SavedModels on the CPU."""
    return Offer(
        name="tf_session",
        formats=frozenset({"saved_model"}),
        device_kinds=frozenset({DeviceKind.CPU}),
        backend="accelserve.backends.tf_session.backend:TfSessionBackend",
        unavailable=_unless_installed("tensorflow", "'accelserve[tensorflow]'", find),
    )


def saved_model_onnx(find: Finder = find_spec) -> Offer:
    """SavedModels on NVIDIA GPUs, converted to ONNX when they are loaded; on the CPU only where `tf_session` is not."""
    missing = _unless_installed("onnxruntime", "'accelserve[cpu]' or 'accelserve[gpu]'", find) or next(
        filter(None, (_unless_installed(name, "'accelserve[convert]'", find) for name in ("tensorflow", "tf2onnx"))), ""
    )
    return Offer(
        name="saved_model_onnx",
        formats=frozenset({"saved_model"}),
        device_kinds=frozenset({DeviceKind.CPU, DeviceKind.GPU}),
        backend="accelserve.backends.saved_model_onnx.backend:SavedModelOnnxBackend",
        unavailable=missing,
        preference=-1,
    )


def cut_model(find: Finder = find_spec) -> Offer:
    """SavedModels that `accelserve convert` has converted; those that decode or look up need TensorFlow besides."""
    return Offer(
        name="cut_model",
        formats=frozenset({"cut"}),
        device_kinds=frozenset({DeviceKind.CPU, DeviceKind.GPU}),
        backend="accelserve.backends.saved_model_onnx.backend:SavedModelOnnxBackend",
        unavailable=_unless_installed("onnxruntime", "'accelserve[cpu]' or 'accelserve[gpu]'", find),
    )


def vitis_fpga() -> Offer:
    """ONNX models on AMD's FPGAs. What lacks (card, XRT, build, xclbin) its inventory tells, all at once."""
    return Offer(
        name="vitis_fpga",
        formats=frozenset({"onnx", "accelonnx"}),
        device_kinds=frozenset({DeviceKind.FPGA}),
        backend="accelserve.backends.vitis_fpga.backend:VitisFpgaBackend",
    )


def openvino(find: Finder = find_spec) -> Offer:
    """ONNX models on FPGAs of Altera's FPGA AI Suite, and on the CPU where it is asked for by name."""
    return Offer(
        name="openvino",
        formats=frozenset({"onnx", "accelonnx"}),
        device_kinds=frozenset({DeviceKind.CPU, DeviceKind.FPGA}),
        backend="accelserve.backends.openvino.backend:OpenVinoBackend",
        unavailable=_unless_installed("openvino", "'accelserve[openvino]'", find),
        preference=-2,
    )


def fpga_emulator(find: Finder = find_spec) -> Offer:
    """ONNX models in an FPGA's numbers and limits, computed by ONNX Runtime on the CPU."""
    return Offer(
        name="fpga_emulator",
        formats=frozenset({"onnx", "accelonnx"}),
        device_kinds=frozenset({DeviceKind.FPGA_EMULATOR}),
        backend="accelserve.backends.fpga_emulator.backend:FpgaEmulatorBackend",
        unavailable=_unless_installed("onnxruntime", "'accelserve[cpu]' or 'accelserve[gpu]'", find),
    )


def synthetic() -> Offer:
    """Models made of arithmetic and delays, for tests and drills."""
    return Offer(
        name="synthetic",
        formats=frozenset({"synthetic"}),
        device_kinds=frozenset({DeviceKind.CPU}),
        backend="accelserve.backends.synthetic.backend:SyntheticBackend",
    )


def _unless_installed(package: str, extra: str, find: Finder) -> str:
    if find(package) is not None:
        return ""
    return f"python package '{package}' is not installed: pip install {extra}"

"""The probe: what the back end would serve; it imports nothing heavy."""

from accelserve.backends.base import Offer
from accelserve.devices import DeviceKind


def probe() -> Offer:
    kinds = frozenset({DeviceKind.FPGA, DeviceKind.FPGA_EMULATOR})
    return Offer("matmul8", frozenset({"onnx"}), kinds, "accelserve_matmul8.backend:Matmul8Backend", preference=-2)

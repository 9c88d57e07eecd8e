"""XRT's and the VitisAI provider's failures in the project's words."""

import re

from accelserve.backends.onnx_runtime.errors import kind_of as onnx_kind_of
from accelserve.errors import Kind

# A card that hung, was reset or fell off its slot; XRT then fails every later call (xrt::error, xclError, ert.h).
_LOST = re.compile(
    r"ERT_CMD_STATE_(?:ABORT|ERROR|TIMEOUT)|DPU (?:timeout|run error)|device (?:is )?(?:lost|offline|hung)"
    r"|No such device|ENODEV|Input/output error|firewall (?:trip|error)|card (?:is )?(?:reset|offline)",
    re.IGNORECASE,
)


def kind_of(error: Exception) -> Kind:
    """INVALID (the input is at fault), DEVICE_LOST, DEVICE_MEMORY or INTERNAL."""
    return Kind.DEVICE_LOST if _LOST.search(str(error)) else onnx_kind_of(error)

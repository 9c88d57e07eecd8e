"""Which layers ONNX Runtime gave to the FPGA, and which to the CPU: read from the session, and told by name."""

from collections.abc import Sequence
from typing import Any

from accelserve.backends.accel_onnx.operators import in_words
from accelserve.backends.base import Placement
from accelserve.backends.onnx_runtime.assignment import assigned_nodes
from accelserve.backends.onnx_runtime.options import CPU
from accelserve.backends.vitis_fpga.options import VitisOptions
from accelserve.backends.vitis_fpga.pieces import PROVIDER
from accelserve.errors import Kind, ScoringError

_REMEDY = (
    "leave them to the host (accelserve convert --to accelonnx, or device_outputs), "
    'or allow the CPU by fallback = "partial" in [backend]'
)


def check_placement(model: str, session: Any, placement: Placement, options: VitisOptions) -> tuple[str, ...]:
    """What a person should know of nodes on the CPU. Raises ScoringError(PRECONDITION) where there may be none.

    The provider compiles what it can and says nothing of the rest (a wrong cache key: all of it).
    """
    if not placement.nodes.get(PROVIDER):
        why = "ONNX Runtime does not tell" if not placement.nodes else "a wrong cache_key or xclbin does that"
        raise ScoringError(Kind.PRECONDITION, f"{model}: no node is known to run on the FPGA ({why})")
    left = left_to_cpu(session)
    if left and options.fallback == "forbid":
        raise refusal(model, left)
    return (f"{len(left)} layers run on the CPU and not on the FPGA: {in_words(left)}",) if left else ()


def left_to_cpu(session: Any) -> list[str]:
    """The layers of the library's session, by name and operator."""
    return [f'"{node.name}" ({node.op_type})' for provider, node in assigned_nodes(session) if provider == CPU]


def refusal(model: str, left: Sequence[str]) -> ScoringError:
    """Of a model with layers for the CPU; left: none where they are not known."""
    return ScoringError(
        Kind.PRECONDITION, f"{model}: the FPGA does not take {in_words(left) or 'all layers'}: {_REMEDY}"
    )

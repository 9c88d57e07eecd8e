"""Which layers OpenVINO runs where, and in which numbers: asked before compiling, and read from what was compiled."""

from collections.abc import Iterator, Mapping
from typing import Any

from accelserve.backends.accel_onnx.operators import in_words
from accelserve.backends.base import Placement
from accelserve.errors import Kind, ScoringError

_NOT_EXECUTED = frozenset({"Input", "Const", "Output"})
_REMEDY = (
    'leave them to the host (accelserve convert --to accelonnx), or allow the CPU by fallback = "partial" in [backend]'
)


def check_layers(model: str, core: Any, graph: Any, name: str) -> None:
    """Every layer is one that the FPGA takes. graph: the library's model; name: the FPGA's.

    Raises ScoringError(PRECONDITION) naming the others.
    """
    taken = core.query_model(graph, name)
    left = [_layer(op) for op in _layers(graph) if op.get_friendly_name() not in taken]
    if left:
        raise ScoringError(Kind.PRECONDITION, f"{model}: {name} does not take {in_words(left)}: {_REMEDY}")


def split_layers(model: str, core: Any, graph: Any, target: str) -> tuple[Placement, tuple[str, ...]]:
    """How HETERO will share the layers out, and a remark on those of the CPU.

    Raises ScoringError(PRECONDITION) where nothing is left for the FPGA.
    """
    where: Mapping[str, str] = core.query_model(graph, target)
    nodes: dict[str, int] = {}
    on_cpu = []
    for op in _layers(graph):
        device = where.get(op.get_friendly_name(), "nowhere")
        nodes[device] = nodes.get(device, 0) + 1
        if device == "CPU":
            on_cpu.append(_layer(op))
    if not any("FPGA" in device for device in nodes):
        raise ScoringError(Kind.PRECONDITION, f"{model}: {target} would run no layer on the FPGA")
    remark = (f"{len(on_cpu)} layers run on the CPU and not on the FPGA: {in_words(on_cpu)}",) if on_cpu else ()
    return Placement(nodes), remark


def all_on(graph: Any, name: str) -> Placement:
    return Placement({name: sum(1 for _ in _layers(graph))})


def check_devices(model: str, compiled: Any, allowed: frozenset[str]) -> None:
    """What was compiled runs where it was told to. Raises ScoringError(DEVICE_MISSING)."""
    took = {str(device) for device in compiled.get_property("EXECUTION_DEVICES")}
    if not took or took - allowed:
        wanted, got = ", ".join(sorted(allowed)), ", ".join(sorted(took)) or "nothing that it tells"
        message = f"{model}: OpenVINO was told to use {wanted} and took {got}"
        raise ScoringError(Kind.DEVICE_MISSING, message)


def executed(compiled: Any) -> dict[str, int]:
    """Number of nodes by the precision in which the CPU runs them."""
    found: dict[str, int] = {}
    for op in compiled.get_runtime_model().get_ordered_ops():
        told = dict(op.get_rt_info().items())
        if _text(told, "layerType") not in _NOT_EXECUTED:
            precision = _text(told, "runtimePrecision")
            found[precision] = found.get(precision, 0) + 1
    return found


def _text(told: Mapping[str, Any], key: str) -> str:
    value = told.get(key, "")
    return str(getattr(value, "value", value))


def _layers(graph: Any) -> Iterator[Any]:
    """The operations that depend on what is fed. The others are computed when the model is compiled.

    So is all that is made of fixed shapes, which the library's reader leaves in the graph.
    """
    fed: set[str] = set()
    for op in graph.get_ordered_ops():
        kind, name = op.get_type_name(), op.get_friendly_name()
        if kind == "ShapeOf" and op.input(0).get_partial_shape().is_static:
            continue
        if kind == "Parameter" or any(value.get_node().get_friendly_name() in fed for value in op.input_values()):
            fed.add(name)
            if kind not in ("Parameter", "Result"):
                yield op


def _layer(op: Any) -> str:
    return f'"{op.get_friendly_name()}" ({op.get_type_name()})'

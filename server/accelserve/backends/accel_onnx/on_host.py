"""A graph on the host: in a session of ONNX Runtime on the CPU. The library is handed in: cards bring their own."""

from collections.abc import Mapping, Sequence
from typing import Any

from accelserve.backends.accel_onnx.running import Run
from accelserve.backends.onnx_runtime.assignment import placement_of
from accelserve.backends.onnx_runtime.errors import one_line, remedy
from accelserve.backends.onnx_runtime.options import CPU
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor

FATAL_ONLY = 4  # every failed run is raised and counted by the server


def open_on_host(library: Any, what: str, graph: str | bytes, threads: int) -> Any:
    """The library's session. what: "model:version", or a part of it, for messages. graph: a file, or its content.

    Raises ScoringError(PRECONDITION).
    """
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = FATAL_ONLY
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    try:
        return library.InferenceSession(graph, options, providers=[(CPU, {})], enable_fallback=False)
    except Exception as error:
        told = f" ({what_to_do})" if (what_to_do := remedy(error)) else ""
        raise ScoringError(Kind.PRECONDITION, f"{what} does not load: {one_line(error)}{told}") from error


def runner(session: Any) -> Run:
    """The library's session as a function; also of a session on a card."""

    def run(names: Sequence[str], inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return dict(zip(names, session.run(list(names), dict(inputs)), strict=True))

    return run


def nodes_of(session: Any) -> int:
    return sum(placement_of(session).nodes.values())

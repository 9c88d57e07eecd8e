"""Where the nodes of a graph run, in words, and a warning when a GPU's session leaves much to the CPU."""

import logging

from accelserve.backends.base import ModelArtifact, Placement, Session
from accelserve.devices import DeviceKind

logger = logging.getLogger("accelserve.models")

# Every step to the CPU and back is a copy and a wait for the stream. A handful of nodes is the shape arithmetic that
# ONNX Runtime leaves there on purpose; more than ten, or a tenth of the graph, is work that the GPU cannot do.
_MOST_CPU_NODES = 10
_MOST_CPU_SHARE = 0.1


def placement_text(placement: Placement) -> str:
    """ "120 nodes on CUDAExecutionProvider, 3 on CPUExecutionProvider"; "" where it is not known."""
    parts = [f"{count} on {where}" for where, count in placement.nodes.items()]
    return "nodes: " + ", ".join(parts) if parts else ""


def cpu_nodes(placement: Placement) -> int:
    return sum(count for where, count in placement.nodes.items() if where.upper().startswith("CPU"))


def too_many_on_cpu(placement: Placement) -> bool:
    total, on_cpu = sum(placement.nodes.values()), cpu_nodes(placement)
    return on_cpu > _MOST_CPU_NODES or on_cpu > _MOST_CPU_SHARE * total


def warn_of_placement(artifact: ModelArtifact, session: Session) -> None:
    """Tell in the log when a GPU's session runs more than a few nodes on the CPU."""
    placement = session.placement
    if session.device.kind is DeviceKind.GPU and too_many_on_cpu(placement):
        logger.warning(
            "%s:%d on %s leaves %d of %d nodes to the CPU, each with copies to and fro; "
            "strict_placement = true in its accelserve.toml refuses that (%s)",
            artifact.name,
            artifact.version,
            session.device.id,
            cpu_nodes(placement),
            sum(placement.nodes.values()),
            placement_text(placement),
        )

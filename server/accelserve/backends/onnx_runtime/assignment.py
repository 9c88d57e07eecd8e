"""Which node of a graph runs on which provider, as ONNX Runtime tells it of a session."""

from types import MappingProxyType
from typing import Any

from accelserve.backends.base import Placement


def assigned_nodes(session: Any) -> list[tuple[str, Any]]:
    """(provider, node) of the library's session, subgraphs included; a node has `name`, `op_type` and `domain`.

    Empty where the library does not tell (before 1.23).
    """
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    return [(part.ep_name, node) for part in ask() for node in part.get_nodes()] if ask is not None else []


def placement_of(session: Any) -> Placement:
    """Nodes by provider; empty where the library does not tell."""
    nodes: dict[str, int] = {}
    for provider, _ in assigned_nodes(session):
        nodes[provider] = nodes.get(provider, 0) + 1
    return Placement(MappingProxyType(nodes))

"""Whether a host part only decodes pictures, and how: then the server's own decoder may stand in for it.

The usual pipeline is known: strings -> map_fn -> decode -> cast -> resize -> arithmetic by constants -> one tensor.
A resize is linear and its weights add up to 1, so it does not matter on which side of it the arithmetic stands.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from accelserve.backends.saved_model_onnx.cut_model import Pictures
from accelserve.convert.cut import node_of
from accelserve.convert.loops import Scope, Unknown, Written, enter_loop, functions_of, leave_loop
from accelserve.convert.parts import PartGraph
from accelserve.convert.picture_steps import AT_THE_CUT, STACKS, Step, applied, data_input, decoded

_READS = ("TensorListGetItem", "TensorArrayReadV3")


def recognise(host: PartGraph) -> tuple[Pictures | None, str]:
    """How a host part makes pictures of strings; None, and at what it is not known, for all that it may be besides."""
    try:
        return _recognise(host), ""
    except Unknown as unknown:
        return None, str(unknown)


def _recognise(host: PartGraph) -> Pictures:
    if len(host.feeds) != 1 or len(host.fetches) != 1 or host.init:
        raise Unknown("it is more than one tensor made of one input")
    (feed,), (fetch,) = host.feeds, host.fetches
    definition = tf.compat.v1.GraphDef()
    definition.CopyFrom(host.definition)  # to ask a node for an attribute that it lacks gives it an empty one
    steps = _chain(definition, feed, fetch)
    state = decoded(steps[0].node)
    for step in steps[1:]:
        state = applied(state, step)
    if not state.stacked or state.size is None or state.dtype not in AT_THE_CUT:
        raise Unknown(f"its pixels have no constant size, or are of {state.dtype}")
    if not np.all(state.factor):
        raise Unknown("its pixels are multiplied by 0")
    mean, scale = -state.offset / state.factor, state.factor
    return Pictures(
        state.size, state.channels, _numbers(mean), _numbers(scale), state.dtype, state.grid, state.fast_dct
    )


def _numbers(values: Any) -> tuple[float, ...]:
    """One where all channels have the same, without the sign of a zero."""
    flat = [float(value) + 0.0 for value in np.ravel(values)]
    return tuple(flat[:1] if len(set(flat)) == 1 else flat)


def _chain(definition: Any, feed: str, fetch: str) -> list[Step]:
    """From the decoder to the cut. Raises Unknown where the way forks or an operator is not known."""
    functions = functions_of(definition)
    scope = Scope({node.name: node for node in definition.node})
    tensor, steps = fetch, list[Step]()
    written: Written | None = None
    while True:
        node = scope.source(tensor)
        if node.op == "Placeholder":
            break
        if node.op in _READS and written is not None:
            scope, tensor = leave_loop(written, node)
            if node_of(tensor) != node_of(feed):
                raise Unknown("a loop over something that is not the input")
            continue
        step = Step(node, scope, data_input(node, scope))
        steps.append(step)
        if node.op in STACKS and written is None:
            written = enter_loop(scope, node, functions, feed)
            scope, tensor = written.scope, written.tensor
        else:
            tensor = node.input[step.data]
    if node_of(tensor) != node_of(feed) or not steps or written is None:
        raise Unknown("no picture is decoded row by row")
    return steps[::-1]

"""Serialized tf.train.Examples that a graph can parse: what models with `parse_example` inside are asked with."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

_SEED = 20190501


def example_pair(definition: Any) -> tuple[bytes, bytes] | None:
    """Two Examples with the dense features of a graph's first parser; None when it has no parser.

    Sparse and ragged features are left out, as an Example may do.
    """
    nodes = {node.name: node for node in definition.node}
    for node in definition.node:
        if node.op in ("ParseExample", "ParseExampleV2"):
            keys = [key for source in _key_inputs(node) for key in _strings(nodes.get(source.partition(":")[0]))]
            features = list(
                zip(keys, node.attr["Tdense"].list.type, node.attr["dense_shapes"].list.shape, strict=False)
            )
            generator = np.random.default_rng(_SEED)
            return _example(features, generator), _example(features, generator)
    return None


def _key_inputs(node: Any) -> Sequence[str]:
    """The inputs that name the dense features: one tensor of all, or in version 1 a scalar for each."""
    inputs: list[str] = list(node.input)
    if node.op == "ParseExampleV2":
        return inputs[3:4]
    first = 2 + node.attr["Nsparse"].i
    return inputs[first : first + node.attr["Ndense"].i]


def _strings(node: Any) -> Iterator[bytes]:
    if node is not None and node.op == "Const":
        yield from tf.make_ndarray(node.attr["value"].tensor).ravel()


def _example(features: Sequence[tuple[bytes, int, Any]], generator: Any) -> bytes:
    made = {key.decode(): _feature(tf.as_dtype(dtype), shape, generator) for key, dtype, shape in features}
    serialized: bytes = tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()
    return serialized


def _feature(dtype: Any, shape: Any, generator: Any) -> Any:
    count = int(np.prod([max(dim.size, 1) for dim in shape.dim], dtype=np.int64))
    train = tf.train
    if dtype == tf.float32:
        return train.Feature(float_list=train.FloatList(value=generator.random(count)))
    if dtype == tf.int64:
        return train.Feature(int64_list=train.Int64List(value=generator.integers(0, 2, count)))
    return train.Feature(bytes_list=train.BytesList(value=[b"%d" % n for n in generator.integers(0, 2, count)]))

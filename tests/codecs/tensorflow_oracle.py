"""What TensorFlow's C++ reader makes of TensorProto bytes: run by test_tensor_proto.py in a process of its own.

stdin: JSON list of hex strings. stdout: JSON list of {"error": true} or {"dtype", "shape", "bytes" or "strings"}.
"""

import json
import sys

import numpy as np
import tensorflow as tf


def parsed(wire: bytes) -> dict[str, object]:
    number = wire[1] if wire[:1] == b"\x08" else 0  # the tests put dtype first
    try:
        tensor = tf.io.parse_tensor(wire, tf.dtypes.as_dtype(number)).numpy()
    except (TypeError, tf.errors.OpError):
        return {"error": True}
    array = np.asarray(tensor, dtype=object if number == tf.string.as_datatype_enum else None)
    found: dict[str, object] = {"dtype": tf.dtypes.as_dtype(number).name, "shape": list(array.shape)}
    if array.dtype == object:
        return found | {"strings": [item.hex() for item in array.reshape(-1).tolist()]}
    return found | {"bytes": np.ascontiguousarray(array).tobytes().hex()}


json.dump([parsed(bytes.fromhex(case)) for case in json.load(sys.stdin)], sys.stdout)

"""Records requests made by the real client: tensorflow-serving-api with tf.make_tensor_proto.

Run from the repository root, after scripts/compat-env:

    .venv-compat/bin/python tests/golden/record_tfserving.py

Writes tests/golden/tfserving/NAME.bin, and manifest.json with what each holds in words that need no TensorFlow:
strings as hex, complex numbers as pairs, all else as JSON has it (infinities and NaN do not occur).
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow.python.framework import tensor_util
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

FOLDER = Path(__file__).parent / "tfserving"
MODEL_ONLY = {"name": "default", "version": None, "label": None}
UNSUPPORTED = ("DT_INVALID", "DT_RESOURCE", "DT_VARIANT")


def every_dtype():
    """One small tensor of each type that a client can send; quantized ones, which the server refuses, left out."""
    for name, number in types_pb2.DataType.items():
        if name.endswith("_REF") or name in UNSUPPORTED or "_Q" in name:
            continue
        dtype = tf.dtypes.as_dtype(number)
        if dtype == tf.string:
            yield dtype, np.array([[b"", b"a\xff"]], object)
        elif dtype.is_bool:
            yield dtype, np.array([[True, False]])
        else:
            low = -2 if dtype.name.startswith(("int", "float", "bfloat", "complex")) else 2
            yield dtype, np.array([[1, low, 0]], np.int32).astype(dtype.as_numpy_dtype)


def plain(values):
    """JSON's form of an array, flat."""
    flat = np.asarray(values).reshape(-1)
    if flat.dtype == object:
        return [item.hex() for item in flat]
    if np.iscomplexobj(flat):
        return [[item.real, item.imag] for item in flat.tolist()]
    if flat.dtype == bool:
        return flat.tolist()
    exact = np.float64 if "float" in flat.dtype.name else np.uint64 if flat.dtype == np.uint64 else np.int64
    return flat.astype(exact).tolist()


def in_typed_field(dtype, values):
    """The proto with `values` in float_val, int_val and so on: by TensorFlow's own fill function where it has one."""
    proto = tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=tf.TensorShape(values.shape).as_proto())
    fill = tensor_util.GetNumpyAppendFn(values.dtype)
    if fill is not None and "int2" not in dtype.name and "int4" not in dtype.name:
        fill(proto, values.reshape(-1))
    elif dtype.name.startswith("float"):
        proto.float8_val = values.tobytes()
    else:
        proto.int_val.extend(values.reshape(-1).astype(np.int32).tolist())
    return proto


def predict(spec=MODEL_ONLY, signature="", output_filter=(), **inputs):
    """A PredictRequest and its description. inputs: alias -> (proto, dtype's name, values)."""
    request = predict_pb2.PredictRequest(output_filter=output_filter)
    if spec is not None:
        request.model_spec.SetInParent()
        fill_spec(request.model_spec, spec)
        request.model_spec.signature_name = signature
    for alias, (proto, _, _) in inputs.items():
        request.inputs[alias.replace("__0", ":0")].CopyFrom(proto)
    return request, {
        "call": "predict",
        "model": spec,
        "signature": signature,
        "output_filter": list(output_filter),
        "inputs": {
            alias.replace("__0", ":0"): {"dtype": dtype, "shape": list(np.shape(values)), "values": plain(values)}
            for alias, (_, dtype, values) in inputs.items()
        },
    }


def fill_spec(message, spec):
    message.name = spec["name"]
    if spec["version"] is not None:
        message.version.value = spec["version"]
    if spec["label"] is not None:
        message.version_label = spec["label"]


def sent(values, dtype=tf.float32):
    """What most clients do."""
    values = np.asarray(values, dtype.as_numpy_dtype)
    return tf.make_tensor_proto(values), dtype.name, values


def typed(values):
    values = np.asarray(values, np.float32)
    return in_typed_field(tf.float32, values), "float32", values


def cases():
    x = sent([[2.0], [3.5]])
    yield "floats_as_content", predict(x=sent(np.arange(12).reshape(2, 2, 3) / 3))
    yield "floats_as_float_val", predict(signature="serving_default", output_filter=["y"], x=typed([2.0]))
    yield "one_float_for_three", predict(x=(tf.make_tensor_proto(2.0, shape=[3]), "float32", np.float32([2, 2, 2])))
    yield "a_scalar", predict(x=sent(2.0))
    yield "no_rows", predict(x=sent(np.zeros((0, 1))))
    yield "two_outputs_wanted", predict(output_filter=["scores", "classes"], x=x)
    yield "a_version", predict({**MODEL_ONLY, "version": 123}, x=x)
    yield "a_label", predict({**MODEL_ONLY, "label": "stable"}, x=x)
    yield "an_empty_spec", predict({"name": "", "version": None, "label": None}, x=x)
    yield "no_spec", predict(None, Placeholder__0=x)
    yield "no_inputs", predict(signature="incr_counter")
    yield "two_inputs", predict(x=x, ids=sent([[1], [-1]], tf.int64))
    jpegs = np.array([b"\xff\xd8\xff\xe0 not a picture", b""], object)
    yield "strings", predict(images=(tf.make_tensor_proto(jpegs), "string", jpegs))
    every = list(every_dtype())
    yield "every_dtype", predict(**{d.name: (tf.make_tensor_proto(v, d), d.name, v) for d, v in every})
    yield "every_dtype_in_its_typed_field", predict(**{d.name: (in_typed_field(d, v), d.name, v) for d, v in every})
    request, told = predict(x=x)
    request.client_id = b"somebody"
    request.request_options.max_cache_length = 7
    request.predict_streamed_options.return_single_response = True
    yield "options_of_newer_clients", (request, told)
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    fill_spec(metadata.model_spec, MODEL_ONLY)
    yield "metadata", (metadata, {"call": "metadata", "model": MODEL_ONLY, "fields": ["signature_def"]})
    status = get_model_status_pb2.GetModelStatusRequest()
    fill_spec(status.model_spec, {**MODEL_ONLY, "version": 9})
    yield "status_of_a_version", (status, {"call": "status", "model": {**MODEL_ONLY, "version": 9}})


def main():
    recorded_with = {name: version(name) for name in ("tensorflow-serving-api", "tensorflow-cpu", "protobuf")}
    lines = []
    for old in FOLDER.glob("*.bin"):
        old.unlink()
    for name, (message, told) in cases():
        (FOLDER / f"{name}.bin").write_bytes(message.SerializeToString(deterministic=True))
        lines.append(f"{json.dumps(name)}: {json.dumps(told)}")
    told_of_all = ",\n".join(lines)
    (FOLDER / "manifest.json").write_text(
        f'{{"recorded_with": {json.dumps(recorded_with)},\n"cases": {{\n{told_of_all}\n}}}}\n'
    )
    print(f"recorded {len(lines)} requests")


if __name__ == "__main__":
    main()

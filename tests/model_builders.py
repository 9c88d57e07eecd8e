"""Small models that the tests build with the tools at hand, instead of committing copies.

The half_plus_* and counter models equal TF Serving's own test models (specs: tensorflow/serving testdata). Each
function writes one model and returns `path`: a file for ONNX and synthetic models, the SavedModel's folder for the
others (name it by a version number to make it part of a model folder). TensorFlow is imported by the builders that
need it, onnx by the others.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

OPSET = 17
IR_VERSION = 8


def onnx_affine(path: Path, a: float = 0.5, b: float = 2.0) -> Path:
    """y = a * x + b; x and y float32 ["batch", 1]."""
    from onnx import TensorProto, helper

    nodes = [helper.make_node("Mul", ["x", "a"], ["ax"]), helper.make_node("Add", ["ax", "b"], ["y"])]
    return _save_onnx(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        {"a": np.array(a, np.float32), "b": np.array(b, np.float32)},
    )


def onnx_mlp(path: Path, features: int = 784, hidden: int = 32, classes: int = 10, seed: int = 0) -> Path:
    """images float32 ["batch", features] -> scores float32 ["batch", classes] (softmax), seeded weights."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, features**-0.5, (features, hidden)).astype(np.float32),
        "b1": rng.normal(0, 0.1, hidden).astype(np.float32),
        "w2": rng.normal(0, hidden**-0.5, (hidden, classes)).astype(np.float32),
        "b2": rng.normal(0, 0.1, classes).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["images", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["z"]),
        helper.make_node("Softmax", ["z"], ["scores"], axis=-1),
    ]
    return _save_onnx(
        path,
        nodes,
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", features])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", classes])],
        weights,
    )


def onnx_image(path: Path, height: int = 8, width: int = 8) -> Path:
    """image uint8 NHWC ["batch", height, width, 3] -> scores float32 ["batch", 3]: the mean of each colour, 0 to 1."""
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("Cast", ["image"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["f", "white"], ["n"]),
        helper.make_node("ReduceMean", ["n"], ["scores"], axes=[1, 2], keepdims=0),
    ]
    return _save_onnx(
        path,
        nodes,
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        {"white": np.array(255, np.float32)},
    )


def onnx_recurrent(path: Path, op: str) -> Path:
    """x float32 [batch, steps, 2] -> y float32 [batch, 3], the last state of one LSTM or GRU."""
    from onnx import TensorProto, helper

    gates = {"LSTM": 4, "GRU": 3}[op]
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.5, (1, gates * 3, size)).astype(np.float32) for name, size in (("w", 2), ("r", 3))}
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps_first"], perm=[1, 0, 2]),
        helper.make_node(op, ["steps_first", "w", "r"], ["", "last"], hidden_size=3),
        helper.make_node("Squeeze", ["last", "axes"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "steps", 2])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])]
    return _save_onnx(path, nodes, inputs, outputs, {**weights, "axes": np.array([0])})


def onnx_external(path: Path, location: str) -> Path:
    """onnx_mlp with its weights in the file `location` beside it."""
    import onnx

    model = onnx.load(onnx_mlp(path))
    (path.parent / location).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0)
    return path


def onnx_identity(path: Path, elem_type: int, shape: Sequence[int | str] = ("batch", 2)) -> Path:
    """y = x, both of `onnx.TensorProto` type `elem_type`."""
    from onnx import helper

    return _save_onnx(
        path,
        [helper.make_node("Identity", ["x"], ["y"])],
        [helper.make_tensor_value_info("x", elem_type, list(shape))],
        [helper.make_tensor_value_info("y", elem_type, list(shape))],
        {},
    )


def _save_onnx(
    path: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Mapping[str, Any]
) -> Path:
    import onnx
    from onnx import helper, numpy_helper

    initializers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def synthetic_model(path: Path, text: str = "") -> Path:
    """A synthetic model: `text` is its TOML; empty: doubles x float32 [-1, 2] into y."""
    double = 'behaviour = "double"\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text or double)
    return path


def import_tensorflow() -> Any:
    """TensorFlow, quiet and on the CPU."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow

    return tensorflow


def saved_model_half_plus_two(path: Path) -> Path:
    """TF1: y = x/2 + 2, y2 = x/2 + 3, y3 = x2/2 + 3, with an asset, parse_example and five signatures."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        a, b, c = (v1.Variable(value, name=name) for name, value in (("a", 0.5), ("b", 2.0), ("c", 3.0)))
        a2, c2 = v1.Variable(0.5, name="a2"), v1.Variable(3.0, name="c2")
        serialized = v1.placeholder(tf.string, [None], name="tf_example")
        features = {
            "x": tf.io.FixedLenFeature([1], tf.float32),
            "x2": tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0]),
        }
        parsed = tf.io.parse_example(serialized, features)
        x, x2 = tf.identity(parsed["x"], name="x"), tf.identity(parsed["x2"], name="x2")
        y = tf.identity(a * x + b, name="y")
        y2 = tf.identity(a * x + c, name="y2")
        y3 = tf.identity(a2 * x2 + c2, name="y3")
        asset = path.parent / "foo.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        asset.write_text("asset-file-contents")
        filename = tf.constant(str(asset), name="filename_tensor")
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, filename)
        kept = v1.Variable("", name="filename_variable", trainable=False, validate_shape=False, collections=[])
        signatures = {
            "serving_default": v1_signature(tf, {"x": x}, {"y": y}),
            "classify_x_to_y": v1_signature(tf, {"inputs": serialized}, {"scores": y}, "classify"),
            "regress_x_to_y": v1_signature(tf, {"inputs": serialized}, {"outputs": y}, "regress"),
            "regress_x_to_y2": v1_signature(tf, {"inputs": serialized}, {"outputs": y2}, "regress"),
            "regress_x2_to_y3": v1_signature(tf, {"inputs": x2}, {"outputs": y3}, "regress"),
        }
        save_v1(tf, path, signatures, assets=[filename], main_op=v1.assign(kept, filename).op)
        asset.unlink()
    return path


def saved_model_half_plus_two_tf2(path: Path) -> Path:
    """TF2: y = x/2 + 2 for x float32 [1], six signatures; serving_default has the default x = [0]."""
    tf = import_tensorflow()

    class HalfPlusTwo(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = tf.Variable(0.5), tf.Variable(2.0), tf.Variable(3.0)

    module = HalfPlusTwo()

    def affine(name: str, offset: Any) -> Callable[[Any], Mapping[str, Any]]:
        return lambda x: {name: module.a * x + offset}

    def of_examples(name: str, feature: str, offset: Any) -> Callable[[Any], Mapping[str, Any]]:
        def answer(inputs: Any) -> Mapping[str, Any]:
            spec = {feature: tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0])}
            return {name: module.a * tf.io.parse_example(inputs, spec)[feature] + offset}

        return answer

    numbers, examples = tf.TensorSpec([1], tf.float32, "x"), tf.TensorSpec([None], tf.string, "inputs")
    module.predict = tf.function(affine("y", module.b)).get_concrete_function(numbers)
    signatures = {
        "serving_default": module.predict,
        "classify_x_to_y": _concrete(tf, of_examples("scores", "x", module.b), examples),
        "classify_x2_to_y3": _concrete(tf, of_examples("scores", "x2", module.c), examples),
        "regress_x_to_y": _concrete(tf, of_examples("outputs", "x", module.b), examples),
        "regress_x_to_y2": _concrete(tf, of_examples("outputs", "x", module.c), examples),
        "regress_x2_to_y3": _concrete(tf, affine("outputs", module.c), tf.TensorSpec([1], tf.float32, "inputs")),
    }
    tf.saved_model.save(module, str(path), signatures)
    _set_default(path, "serving_default", "x", np.zeros(1, np.float32))
    return path


def saved_model_half_plus_three(path: Path) -> Path:
    """TF1: y = x/2 + 3 for any x float32 of unknown rank; method name regress. The V2 loader fails on upstream's."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        a, b = v1.Variable(0.5, name="a"), v1.Variable(3.0, name="b")
        x = v1.placeholder_with_default(tf.constant(0.0), shape=[], name="x")
        y = tf.identity(a * x + b, name="y")
        signatures = {"serving_default": v1_signature(tf, {"x": x}, {"y": y}, "regress")}
        save_v1(tf, path, signatures)
    return path


def saved_model_counter(path: Path) -> Path:
    """TF1 with state: get_counter, incr_counter, reset_counter without inputs, incr_counter_by(delta); float_ref."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        counter = v1.Variable(0.0, name="counter", use_resource=False)
        delta = v1.placeholder(tf.float32, [], name="delta")
        outputs = {
            "get_counter": counter._variable,
            "incr_counter": v1.assign_add(counter, 1.0),
            "reset_counter": v1.assign(counter, 0.0),
        }
        signatures = {name: v1_signature(tf, {}, {"output": tensor}) for name, tensor in outputs.items()}
        added = v1.assign_add(counter, delta)
        signatures["incr_counter_by"] = v1_signature(tf, {"delta": delta}, {"output": added})
        save_v1(tf, path, signatures)
    return path


def saved_model_matrix_half_plus_two(path: Path) -> Path:
    """TF1 without variables: y = x/2 + 2, float32 [-1, 3, 3]."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        x = v1.placeholder(tf.float32, [None, 3, 3], name="x")
        y = tf.identity(x * 0.5 + 2.0, name="y")
        save_v1(tf, path, {"serving_default": v1_signature(tf, {"x": x}, {"y": y})})
    return path


def saved_model_jpeg(path: Path, size: int = 16) -> Path:
    """TF1: images string [-1] of JPEG bytes -> scores float32 [-1, 3], the mean of each colour, 0 to 1."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    with v1.Graph().as_default():
        images = v1.placeholder(tf.string, [None], name="images")

        def decode(picture: Any) -> Any:
            pixels = tf.image.decode_jpeg(picture, channels=3)
            return tf.image.resize(tf.cast(pixels, tf.float32) / 255.0, [size, size])

        pixels = tf.map_fn(decode, images, fn_output_signature=tf.TensorSpec([size, size, 3], tf.float32))
        scores = tf.reduce_mean(pixels, axis=[1, 2], name="scores")
        save_v1(tf, path, {"serving_default": v1_signature(tf, {"images": images}, {"scores": scores})})
    return path


def jpeg(colour: tuple[int, int, int] = (200, 100, 50), size: tuple[int, int] = (32, 24)) -> bytes:
    """A JPEG of one colour (RGB), size (width, height)."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _concrete(tf: Any, function: Callable[[Any], Any], spec: Any) -> Any:
    return tf.function(function).get_concrete_function(spec)


def v1_signature(tf: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any], method: str = "predict") -> Any:
    info = tf.compat.v1.saved_model.build_tensor_info
    return tf.compat.v1.saved_model.build_signature_def(
        {name: info(tensor) for name, tensor in inputs.items()},
        {name: info(tensor) for name, tensor in outputs.items()},
        f"tensorflow/serving/{method}",
    )


def save_v1(
    tf: Any, path: Path, signatures: Mapping[str, Any], assets: Sequence[Any] | None = None, main_op: Any = None
) -> None:
    v1 = tf.compat.v1
    with v1.Session() as session:
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(path))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            signature_def_map=dict(signatures),
            assets_collection=list(assets) if assets else None,
            main_op=main_op,
        )
        builder.save()


def _set_default(path: Path, signature: str, name: str, value: Any) -> None:
    """Write `SignatureDef.defaults` into a saved model, which the Python exporter cannot be asked for."""
    tf = import_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    file = path / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    definition = model.meta_graphs[0].signature_def[signature]
    definition.defaults[name].CopyFrom(tf.make_tensor_proto(value))
    file.write_bytes(model.SerializeToString())

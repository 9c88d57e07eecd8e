"""The network, once for each form it is stored in. Three convolutions and one dense layer, 48,000 weights.

    uint8 [n, 32, 32, 3] -> grey 0..1, less its mean, by its deviation
    -> 3 x (conv 3x3, relu, max pool 2x2) -> [n, 64, 4, 4] -> dense -> softmax [n, 10]

Weights travel as a mapping from name to float32 array, in the layout of ONNX: `conv1_w` [24, 1, 3, 3] and `conv1_b`
[24], then `conv2_*` (48) and `conv3_*` (64), `dense_w` [1024, 10] over the channels-first features, `dense_b` [10].
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Weights = Mapping[str, NDArray[np.float32]]
SIZE = 32  # pixels of a side
CHANNELS = (24, 48, 64)
FEATURES = CHANNELS[-1] * (SIZE // 8) ** 2
MIN_VARIANCE = 1e-3  # keeps the noise of an empty board small
OPSET = 17
IR_VERSION = 8  # the oldest that opset 17 needs, so that old runtimes load the file too


def onnx_model(weights: Weights, held_out_accuracy: float) -> onnx.ModelProto:
    """The network as ONNX: `image` uint8 [batch, 32, 32, 3] RGB to `scores` float32 [batch, 10], probabilities."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["grey"], axes=[3], keepdims=0),
        helper.make_node("Div", ["grey", "full_scale"], ["unit"]),
        helper.make_node("Unsqueeze", ["unit", "channel_axis"], ["plane"]),
        helper.make_node("InstanceNormalization", ["plane", "one", "zero"], ["pool0"], epsilon=MIN_VARIANCE),
    ]
    for layer in range(1, len(CHANNELS) + 1):
        nodes += _onnx_layer(layer)
    nodes += [
        helper.make_node("Flatten", [f"pool{len(CHANNELS)}"], ["features"]),
        helper.make_node("Gemm", ["features", "dense_w", "dense_b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
    ]
    constants = {
        **weights,
        "full_scale": np.float32(255),
        "channel_axis": np.array([1], np.int64),
        "one": np.ones(1, np.float32),
        "zero": np.zeros(1, np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="accelserve digits")
    model.ir_version = IR_VERSION
    helper.set_model_props(model, {"held_out_accuracy": f"{held_out_accuracy:.4f}"})
    onnx.checker.check_model(model, full_check=True)
    return model


def _onnx_layer(number: int) -> list[onnx.NodeProto]:
    name = f"conv{number}"
    inputs = [f"pool{number - 1}", f"{name}_w", f"{name}_b"]
    return [
        helper.make_node("Conv", inputs, [name], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", [name], [f"relu{number}"]),
        helper.make_node("MaxPool", [f"relu{number}"], [f"pool{number}"], kernel_shape=[2, 2], strides=[2, 2]),
    ]


def read_weights(model_file: Path) -> Weights:
    """The weights of a file that `onnx_model` made."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(model_file).graph.initializer}
    return {name: stored[name] for name in stored if name.endswith(("_w", "_b"))}


def write_saved_model(weights: Weights, folder: Path) -> None:
    """The network as a TensorFlow 1 SavedModel that decodes in its graph, as the Azure services' models did.

    Signature `serving_default`: `images` string [batch], whole JPEG files, to `scores` float32 [batch, 10].
    The weights are constants of the graph, so `saved_model.pb` is all there is.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default(), tf.Session() as session:
        images = tf.placeholder(tf.string, [None], name="images")
        pixels = tf.map_fn(_decode_jpeg, images, fn_output_signature=tf.float32)
        scores = _tensorflow_network(pixels, weights)
        builder = tf.saved_model.Builder(str(folder))
        signature = tf.saved_model.predict_signature_def({"images": images}, {"scores": scores})
        tags = [tf.saved_model.tag_constants.SERVING]
        builder.add_meta_graph_and_variables(session, tags, {"serving_default": signature})
        builder.save()


def _decode_jpeg(data):
    """string [] -> float32 [32, 32, 3] of whole numbers 0..255: the size and the rounding that the dense model gets."""
    import tensorflow.compat.v1 as tf

    picture = tf.image.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    shrunk = tf.image.resize_area(picture[None], [SIZE, SIZE])[0]
    return tf.round(shrunk)


def _tensorflow_network(pixels, weights: Weights):
    """float32 [n, 32, 32, 3] -> softmax [n, 10]; channels last inside, because TensorFlow's CPU kernels are."""
    import tensorflow.compat.v1 as tf

    x = tf.reduce_mean(pixels, axis=3, keepdims=True) / 255
    mean, variance = tf.nn.moments(x, axes=[1, 2], keepdims=True)
    x = (x - mean) * tf.rsqrt(variance + MIN_VARIANCE)
    for layer in range(1, len(CHANNELS) + 1):
        kernel = weights[f"conv{layer}_w"].transpose(2, 3, 1, 0)
        x = tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME") + weights[f"conv{layer}_b"])
        x = tf.nn.max_pool2d(x, 2, 2, "VALID")
    features = tf.reshape(tf.transpose(x, [0, 3, 1, 2]), [-1, FEATURES])
    return tf.nn.softmax(features @ weights["dense_w"] + weights["dense_b"], name="scores")

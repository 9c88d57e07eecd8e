"""One-layer ONNX models, and their outputs through the emulator's real path: the rewrite, run by ONNX Runtime."""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from reference_formats import Bfp, Floats, Mx

from accelserve.backends.base import SessionOptions
from accelserve.backends.fpga_emulator.exactness import exact_for, watched
from accelserve.backends.fpga_emulator.formats import BlockFloat, Format, MxFloat, Numerics
from accelserve.backends.fpga_emulator.rewrite import Emulated, emulate
from accelserve.backends.onnx_runtime.options import OnnxOptions, session_options
from accelserve.wire import onnx_pb2

OPSET = 17
IR_VERSION = 8


def reference_of(form: Format) -> Bfp | Mx:
    """The reference's name for a format of the emulator."""
    if isinstance(form, BlockFloat):
        codes = form.codes == "twos-complement"
        return Bfp(form.mantissa, form.exponent, form.block, form.rounding, form.on_carry, codes)
    assert isinstance(form, MxFloat)
    element = form.element
    return Mx(element.mantissa, element.emin, element.emax, element.largest, form.block)


def model(op: str, x: Floats, weights: Floats, bias: Floats | None = None, relu: str = "", **attributes) -> bytes:
    """`x` -> op with constant weights -> `y`; relu: "before" or "after" it too. The first axis of both is free."""
    before = [helper.make_node("Relu", ["x"], ["positive"], name="relu")] if relu == "before" else []
    after = [helper.make_node("Relu", ["sum"], ["y"], name="relu")] if relu == "after" else []
    inputs = ["positive" if before else "x", "weights", *(["bias"] if bias is not None else [])]
    layer = helper.make_node(op, inputs, ["sum" if after else "y"], name="layer", **attributes)
    constants = {"weights": weights, **({"bias": bias} if bias is not None else {})}
    graph = helper.make_graph(
        [*before, layer, *after],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *x.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *(f"y{axis}" for axis in range(1, x.ndim))])],
        [numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return made.SerializeToString()


def residual_model(x: Floats, weights: tuple[Floats, Floats, Floats]) -> bytes:
    """`x` -> conv 3x3, ReLU -> conv 3x3 beside conv 1x1 -> their sum -> `y`: two layers share one quantizer."""
    padded = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], name="first", **padded),
        helper.make_node("Relu", ["c0"], ["r0"], name="relu"),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], name="main", **padded),
        helper.make_node("Conv", ["r0", "w2"], ["c2"], name="shortcut", kernel_shape=[1, 1]),
        helper.make_node("Add", ["c1", "c2"], ["y"], name="sum"),
    ]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *x.shape[1:]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(weights[2]), *x.shape[2:]])],
        [numpy_helper.from_array(value, f"w{number}") for number, value in enumerate(weights)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return made.SerializeToString()


def emulated(plain: bytes, numerics: Numerics) -> Emulated:
    return emulate(onnx_pb2.ModelProto.FromString(plain), numerics)


def run(graph: bytes, x: Floats, output: str = "y") -> Floats:
    """An output for `x`, in a session made as the server makes it."""
    options = session_options(onnxruntime, OnnxOptions(), SessionOptions(threads=1))
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    (found,) = session.run([output], {"x": x})
    return found


def run_emulated(plain: bytes, x: Floats, numerics: Numerics) -> Floats:
    return run(emulated(plain, numerics).model.SerializeToString(), x)


def run_watched(plain: bytes, x: Floats, numerics: Numerics) -> tuple[Floats, bool]:
    """`y`, and whether the emulator calls its layer exact for these inputs."""
    made = watched(emulated(plain, numerics).model, numerics.format, ("layer",))
    graph = made.model.SerializeToString()
    steps = {layer: run(graph, x, output).item() for layer, output in made.steps.items()}
    return run(graph, x), "layer" in exact_for(steps)


def quantized_by_the_graph(rows: Floats, form: Format, relu: bool = False) -> Floats:
    """rows [n, length] as a matrix product with the identity sees them: one value times 1.0, and zeros.

    A NaN times zero is NaN, so an undefined block shows in all of its row. relu: behind one, where the emulator knows
    that no value is negative.
    """
    identity = np.eye(rows.shape[1], dtype=np.float32)
    return run_emulated(model("MatMul", rows, identity, relu="before" if relu else ""), rows, Numerics(form))


def quantized_alone_by_the_graph(values: Floats, form: Format) -> Floats:
    """values [n], each a block of its own: the only channel of a 1x1 convolution by 1.0."""
    plane = values.reshape(1, 1, 1, -1)
    return run_emulated(model("Conv", plane, np.ones((1, 1, 1, 1), np.float32)), plane, Numerics(form)).ravel()

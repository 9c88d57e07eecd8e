import numpy as np
import onnxruntime
import pytest
from fpga_graphs import FORMATS

from accelserve.backends.fpga_emulator.formats import BlockFloat, Fp32, Numerics, parse_format
from accelserve.backends.fpga_emulator.golden_blocks import golden_blocks
from accelserve.backends.fpga_emulator.quantize import quantize
from accelserve.backends.fpga_emulator.self_test import check_arithmetic
from accelserve.errors import Kind, ScoringError
from accelserve.wire import onnx_pb2


def run_once(graph, outputs, inputs, **config):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    for key, value in config.items():
        options.add_session_config_entry(f"session.{key}", value)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return session.run(list(outputs), dict(inputs))


@pytest.mark.parametrize("format", FORMATS)
def test_this_runtime_passes_for_every_format(format):
    check_arithmetic(Numerics(parse_format(format)), run_once)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("unsigned", [False, True])
def test_the_golden_blocks_are_what_the_quantizer_makes_of_them(format, unsigned):
    golden = golden_blocks(parse_format(format), unsigned)
    np.testing.assert_array_equal(quantize(golden.given, parse_format(format), 0), golden.wanted)


@pytest.mark.parametrize("format", FORMATS)
def test_the_golden_blocks_hold_what_tells_formats_apart(format):
    mine = parse_format(format)
    golden = golden_blocks(mine)
    for other in FORMATS:
        theirs = parse_format(other)
        if theirs != mine and theirs.block == mine.block and isinstance(theirs, BlockFloat):
            assert not np.array_equal(quantize(golden.given, theirs, 0), golden.wanted), other


@pytest.mark.parametrize(("elementwise", "overflow"), [("fp16", "ieee"), ("fp16", "saturate"), ("bf16", "ieee")])
def test_this_runtime_passes_for_every_elementwise_width(elementwise, overflow):
    check_arithmetic(Numerics(Fp32(), elementwise, overflow), run_once)


def spoiled(operator, name_part=""):
    """A runtime whose optimizer takes a node for the identity of its first input."""

    def run(graph, outputs, inputs):
        model = onnx_pb2.ModelProto.FromString(graph)
        for node in model.graph.node:
            if node.op_type == operator and name_part in node.name:
                node.CopyFrom(onnx_pb2.NodeProto(op_type="Identity", input=node.input[:1], output=node.output))
        return run_once(model.SerializeToString(), outputs, inputs)

    return run


@pytest.mark.parametrize(
    ("format", "operator", "name_part"),
    [
        ("msfp12", "Min", "below_top"),
        ("msfp12", "Max", "clamped"),
        ("bfp(m=3,e=8,b=16,rounding=away)", "Floor", ""),
        ("mxfp8_e4m3", "Max", "/shift"),
    ],
)
def test_a_runtime_that_skips_a_step_is_refused_with_the_value(format, operator, name_part):
    with pytest.raises(ScoringError) as refused:
        check_arithmetic(Numerics(parse_format(format)), spoiled(operator, name_part))
    assert refused.value.kind is Kind.PRECONDITION
    assert f"does not compute {parse_format(format)} as it is defined" in refused.value.message


def test_a_runtime_that_cancels_the_shift_is_refused():
    def run(graph, outputs, inputs):
        model = onnx_pb2.ModelProto.FromString(graph)
        for node in model.graph.node:
            if node.name.partition(".")[0].endswith(("/shifted", "/rounded")):
                node.CopyFrom(onnx_pb2.NodeProto(op_type="Identity", input=node.input[:1], output=node.output))
        return run_once(model.SerializeToString(), outputs, inputs)

    with pytest.raises(ScoringError, match=r"became .* want"):
        check_arithmetic(Numerics(parse_format("msfp12")), run)


def test_a_runtime_that_keeps_float32_between_the_layers_is_refused():
    with pytest.raises(ScoringError, match="does not compute bf16"):
        check_arithmetic(Numerics(Fp32(), "bf16"), spoiled("Cast"))

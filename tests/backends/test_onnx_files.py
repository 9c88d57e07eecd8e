"""The walk over an ONNX file that finds its external data."""

import mmap
import tracemalloc

import numpy as np
import pytest

from accelserve.backends.onnx_runtime.files import WAYS, external_files
from accelserve.errors import Kind, ScoringError
from model_builders import onnx_external, onnx_mlp

onnx = pytest.importorskip("onnx")


def outside(name, data=b""):
    """An external tensor, as the proto says it."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", name), ("offset", "0"), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def written(tmp_path, model):
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def refused(path):
    with pytest.raises(ScoringError) as caught:
        external_files(path)
    assert caught.value.kind is Kind.PRECONDITION
    return caught.value.message


def test_a_model_that_holds_its_weights_names_no_files(tmp_path):
    assert external_files(onnx_mlp(tmp_path / "m.onnx")) == ()


def test_a_file_that_many_tensors_share_is_named_once(tmp_path):
    assert external_files(onnx_external(tmp_path / "m.onnx", "m.data")) == ("m.data",)


def test_the_ways_are_all_that_lead_to_a_tensor():
    """Held against the descriptors of the onnx package: every message field on a way, and no other."""
    found, pending = {}, [onnx.ModelProto.DESCRIPTOR]
    while pending:
        message = pending.pop()
        if message.name in found or message.name == "TensorProto":
            continue
        parts = [field for field in message.fields if field.message_type is not None and leads(field.message_type)]
        found[message.name] = {field.number: field.message_type.name for field in parts}
        pending += [field.message_type for field in parts]
    assert {name: dict(ways) for name, ways in WAYS.items()} == found


def leads(message, seen=frozenset()):
    """Whether a tensor can be in it."""
    if message.name == "TensorProto":
        return True
    inner = [field.message_type for field in message.fields if field.message_type is not None]
    return any(leads(part, seen | {message.name}) for part in inner if part.name not in seen)


def test_tensors_are_found_wherever_they_may_be(tmp_path):
    model = onnx.ModelProto()
    model.graph.initializer.append(outside("initializer"))
    model.graph.sparse_initializer.add(values=outside("sparse values"), indices=outside("sparse indices"))
    node = model.graph.node.add()
    node.attribute.add(name="value", t=outside("attribute"))
    node.attribute.add(name="values").tensors.append(outside("attributes"))
    node.attribute.add(name="body").g.initializer.append(outside("subgraph"))
    node.attribute.add(name="bodies").graphs.add().node.add().attribute.add(t=outside("deep"))
    model.functions.add().node.add().attribute.add(t=outside("function"))
    model.training_info.add().initialization.initializer.append(outside("training"))
    wanted = ["initializer", "sparse values", "sparse indices", "attribute", "attributes", "subgraph", "deep"]
    assert external_files(written(tmp_path, model)) == tuple(sorted([*wanted, "function", "training"]))


def test_a_location_without_the_external_mark_is_not_used(tmp_path):
    model, tensor = onnx.ModelProto(), outside("stale")
    tensor.data_location = onnx.TensorProto.DEFAULT
    model.graph.initializer.append(tensor)
    assert external_files(written(tmp_path, model)) == ()


@pytest.mark.parametrize("place", ["/etc/passwd", "../secret", "a/../../secret", "", "a\0b"])
def test_external_data_outside_the_folder_is_refused(tmp_path, place):
    model = onnx.ModelProto()
    model.graph.initializer.append(outside(place))
    assert "is outside its folder" in refused(written(tmp_path, model))


def test_graphs_may_be_nested_deeper_than_python_recurses(tmp_path):
    graph = onnx.GraphProto(initializer=[outside("bottom")]).SerializeToString()
    for _ in range(2000):  # by hand: protobuf itself refuses to write or read so deep a message
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "deep.onnx"
    path.write_bytes(field(7, graph))
    assert external_files(path) == ("bottom",)


def field(number, payload):
    from accelserve.codecs.wire_format import field as written_field

    return written_field(number, payload)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 20, b"not a model at all", b"\x3a\xff\xff\xff\xff\x0f", b"\x3b", b"\x3a\x02\x0a"],
    ids=["empty", "endless number", "text", "cut graph", "group", "cut length"],
)
def test_a_file_that_is_no_model_is_refused_in_words(tmp_path, content):
    (tmp_path / "m.onnx").write_bytes(content)
    assert "cannot be read as an ONNX model" in refused(tmp_path / "m.onnx")


def test_every_beginning_of_a_model_is_read_or_refused(tmp_path):
    whole = onnx_external(tmp_path / "m.onnx", "m.data").read_bytes()
    refusals = 0
    for length in range(1, len(whole)):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        try:
            external_files(tmp_path / "cut.onnx")
        except ScoringError:
            refusals += 1
    assert refusals > len(whole) * 0.9


def test_weights_inside_the_file_are_stepped_over_and_not_read(tmp_path):
    model = onnx.ModelProto()
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(2**24, np.float32), "large"))
    model.graph.initializer.append(outside("small"))
    path = written(tmp_path, model)
    tracemalloc.start()
    try:
        assert external_files(path) == ("small",)
        assert tracemalloc.get_traced_memory()[1] < 2**20 < mmap.PAGESIZE * 2**10 < path.stat().st_size
    finally:
        tracemalloc.stop()

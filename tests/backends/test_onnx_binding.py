"""Slots on the real library, in the CPU's memory: the host array and the model's are two, as on a GPU."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import model_builders
from accelserve.backends.base import Batch, ModelArtifact, SessionOptions
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.backends.onnx_runtime.binding import Layout, Port, Slot, SlotPool, layout_of, why_unbound
from accelserve.backends.onnx_runtime.memory import HostMemory
from accelserve.backends.onnx_runtime.signature import read_signature
from accelserve.tensors import BY_NAME, Signature, TensorSpec


class TwoPlaces(HostMemory):
    """Host memory whose device is other host memory, so that a copy that is left out is seen."""

    def __init__(self) -> None:
        self.device: dict[int, np.ndarray] = {}
        self.copies: list[str] = []

    def device_buffer(self, host):
        room = np.zeros_like(host)
        self.device[room.ctypes.data] = room
        return room.ctypes.data

    def stream(self):
        return self

    def to_device(self, address, host):
        self.device[address][: len(host)] = host
        self.copies.append(f"{len(host)} in")

    def to_host(self, host, address):
        host[:] = self.device[address][: len(host)]
        self.copies.append(f"{len(host)} out")

    def wait(self): ...


@pytest.fixture
def session(tmp_path):
    path = model_builders.onnx_affine(tmp_path / "m.onnx")
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def floats(*values):
    return np.array([[value] for value in values], np.float32)


def layout(on_device: bool) -> Layout:
    port = Port("x", np.dtype(np.float32), (-1, 1), True, on_device)
    return Layout((port,), (Port("y", port.dtype, port.inner, True, on_device),))


def answer(session, slot: Slot, x: np.ndarray) -> list[float]:
    slot.fill({"x": x}, len(x))
    slot.to_device(len(x))
    session.run_with_iobinding(slot.binding(len(x)))
    return slot.to_host(["y"], len(x))["y"].ravel().tolist()


def test_a_batch_goes_to_the_models_memory_and_back(session):
    memory = TwoPlaces()
    slot = Slot(0, session, layout(on_device=True), memory, 4)
    assert answer(session, slot, floats(1, 2, 5)) == [2.5, 3.0, 4.5]
    assert memory.copies == ["3 in", "3 out"]


def test_every_size_has_its_binding_in_the_same_memory(session):
    memory = TwoPlaces()
    slot = Slot(0, session, layout(on_device=True), memory, 4)
    assert [answer(session, slot, floats(*range(rows))) for rows in (1, 4, 2)] == [[2], [2, 2.5, 3, 3.5], [2, 2.5]]
    assert slot.binding(2) is slot.binding(2)
    assert len(memory.device) == 2


def test_what_the_cpu_reads_is_bound_where_it_lies_and_not_copied(session):
    read = read_signature("m", session.get_inputs(), session.get_outputs())
    found = layout_of(read, session)
    assert [port.on_device for port in (*found.inputs, *found.outputs)] == [False, False]
    memory = TwoPlaces()
    assert answer(session, Slot(0, session, found, memory, 4), floats(3)) == [3.5]
    assert memory.copies == []


def test_a_pool_lends_each_slot_once():
    class NoSession: ...

    pool = SlotPool(NoSession(), layout(on_device=False), HostMemory(), 4, 2)
    first, second = pool.take(), pool.take()
    assert {first.number, second.number} == {0, 1}
    assert pool.take() is None
    pool.give_back(first)
    assert pool.take() is first


@pytest.mark.parametrize(
    ("dtype", "shape", "reason"),
    [
        ("float32", (-1, 3), ""),
        ("float32", (2, 3), ""),
        ("string", (-1, 3), 'input "x" is of strings'),
        ("float32", (-1, -1), 'input "x" has no fixed size: float32[-1,-1]'),
        ("float32", None, 'input "x" has no fixed size: float32[...]'),
    ],
)
def test_what_cannot_be_bound_is_told(dtype, shape, reason):
    spec = TensorSpec("x", BY_NAME[dtype], shape, "x")
    signature = Signature("s", {"x": spec}, {"y": TensorSpec("y", BY_NAME["float32"], (-1, 3), "y")})
    if shape == (2, 3):
        signature = Signature("s", {"x": spec}, {"y": TensorSpec("y", BY_NAME["float32"], (2, 3), "y")})
    assert why_unbound(signature) == reason


def test_inputs_of_another_dtype_or_shape_do_not_fit():
    found = layout(on_device=False)
    assert found.fits({"x": floats(1)}, 1)
    assert not found.fits({"x": floats(1).astype(np.float64)}, 1)
    assert not found.fits({"x": np.zeros((1, 2), np.float32)}, 1)


def load(path, **options):
    backend = OnnxRuntimeBackend()
    asked = SessionOptions(max_batch_size=4, extra={"io_binding": True}, **options)
    artifact, device = ModelArtifact("m", 3, "onnx", path), backend.inventory().devices[0]
    prepared = backend.prepare(artifact, device, asked, None, lambda what, done: None)
    return backend.load(prepared, device, asked, None)


def every_other_row(path):
    """y = x[::2]: its shape promises a row for each row, as far as the signature can tell."""
    import onnx

    graph = helper.make_graph(
        [helper.make_node("Slice", ["x", "from", "to", "axis", "step"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["m", 1])],
        [
            helper.make_tensor(name, TensorProto.INT64, [1], [value])
            for name, value in {"from": 0, "to": 2**31, "axis": 0, "step": 2}.items()
        ],
    )
    opset = [helper.make_opsetid("", model_builders.OPSET)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=model_builders.IR_VERSION), path)
    return path


def test_a_model_whose_output_has_other_rows_goes_on_without_bound_memory(tmp_path, caplog):
    session = load(every_other_row(tmp_path / "m.onnx"))
    for _ in range(2):
        result = session.run(Batch("serving_default", {"x": floats(1, 2, 3)}, ("y",), 3))
        assert result.outputs["y"].tolist() == [[1], [3]]
    assert session.buffers("serving_default", 3) is None
    assert caplog.text.count("runs without bound memory") == 1


def test_a_model_without_a_batch_axis_is_bound_as_it_is(tmp_path):
    session = load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.FLOAT, (2, 2)))
    x = np.arange(4, dtype=np.float32).reshape(2, 2)
    lent = session.buffers("serving_default", 1)
    assert lent["x"].shape == (2, 2)
    lent["x"][:] = x
    assert session.run(Batch("serving_default", lent, ("y",), 1)).outputs["y"].tolist() == x.tolist()

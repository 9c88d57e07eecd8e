"""The emulated card as a back end: what is kept, what it takes, its states and its time."""

import json
import logging
import threading

import numpy as np
import pytest
from fpga_graphs import model, node

from accelserve.backends.accel_onnx.accel_model import FILE_NAME
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Batch, DeviceState, ModelArtifact, SessionOptions
from accelserve.backends.conformance.small_models import onnx_classifier
from accelserve.backends.fpga_emulator import backend as backend_module
from accelserve.backends.fpga_emulator.backend import DEVICE, FpgaEmulatorBackend
from accelserve.backends.lease import acquire_lease
from accelserve.errors import Kind, ScoringError
from accelserve.wire.onnx_pb2 import ModelProto

ROWS = np.random.default_rng(1).normal(size=(4, 16)).astype(np.float32)


class SetClock:
    def __init__(self):
        self.ns = 0

    def now_ns(self):
        return self.ns


@pytest.fixture
def artifact(tmp_path):
    return ModelArtifact("classifier", 1, "onnx", onnx_classifier(tmp_path / "model.onnx"))


@pytest.fixture
def lease(tmp_path):
    held = acquire_lease(tmp_path / "leases", DEVICE.id, "classifier")
    yield held
    held.release()


@pytest.fixture
def opened(artifact, lease, tmp_path):
    sessions = []

    def open_one(backend=None, **extra):
        backend = backend or FpgaEmulatorBackend()
        options = SessionOptions(threads=1, extra=extra)
        cache = FolderArtifactCache(tmp_path / "cache")
        prepared = backend.prepare(artifact, DEVICE, options, cache, lambda what, done: None)
        sessions.append(backend.load(prepared, DEVICE, options, lease))
        return sessions[-1]

    yield open_one
    for session in sessions:
        session.close()


def ask(session, rows=ROWS[:1]):
    return session.run(Batch("serving_default", {"images": rows}, ("scores",), len(rows)))


def test_fewer_bits_are_further_from_float32(opened):
    exact = ask(opened(format="fp32")).outputs["scores"]
    errors = [np.abs(ask(opened(format=f)).outputs["scores"] - exact).max() for f in ("msfp16", "msfp12", "msfp11")]
    assert 0 < errors[0] < errors[1] < errors[2] < 0.2


@pytest.mark.parametrize("shape", [(16,), (1, 16, 4), (3, 16, 4)])
def test_products_with_vectors_and_stacks_of_matrices_are_served(shape, artifact, opened):
    weights = np.random.default_rng(2).integers(-3, 4, size=shape).astype(np.float32)
    x = ["n", 3, 16]
    whole = model([node("MatMul", "x w", "y")], {"w": weights}, x, ["n", 3, 4][: 2 + (len(shape) > 1)])
    artifact.path.write_bytes(whole.SerializeToString())
    rows = np.random.default_rng(3).integers(-3, 4, size=(1, 3, 16)).astype(np.float32)
    made = opened().run(Batch("serving_default", {"x": rows}, ("y",), 1)).outputs["y"]
    np.testing.assert_array_equal(made, rows @ weights)


@pytest.mark.parametrize("shape", [(16, 0), (0, 4)])
def test_a_layer_with_empty_weights_is_refused_by_name(shape, artifact, opened):
    weights = np.zeros(shape, np.float32)
    whole = model([node("MatMul", "x w", "y")], {"w": weights}, ["n", shape[0]], ["n", shape[1]])
    artifact.path.write_bytes(whole.SerializeToString())
    with pytest.raises(ScoringError, match=r'layer "MatMul_y" \(MatMul\): its weights "w" are empty') as refused:
        opened()
    assert refused.value.kind is Kind.PRECONDITION


def test_more_rows_than_the_card_takes_are_refused_by_the_session(opened):
    with pytest.raises(ScoringError, match="want at most 2 rows in a run on fpga-emulator:0, got 4") as refusal:
        ask(opened(max_batch=2), ROWS)
    assert refusal.value.kind is Kind.INVALID


def test_nodes_are_told_by_where_they_would_run(opened):
    assert set(opened().placement.nodes) == {"fpga-emulator", "CPU (host's tail)"}


def test_a_person_is_told_of_layers_sizes_and_the_modelled_time(opened):
    told = " ".join(opened(format="brainwave-a10").remarks)
    for words in (
        "emulated in bfp(m=5,e=5,b=128)",
        "of 2 layers",
        "MiB packed",
        "not public",
        "modelled, not measured",
    ):
        assert words in told


def test_layers_are_told_by_what_the_order_of_adding_changes(opened):
    assert "2 of 2 layers are exact for every input, 2 were for a row of noise" in opened(format="msfp12").remarks[0]
    assert "order-dependent in float32's last bits: " in opened(format="mxfp8_e5m2").remarks[0]


def test_the_modelled_time_is_the_latency_models_and_grows_with_the_rows(opened):
    session = opened(max_batch=4, card="brainwave-a10", overhead_us=1000)
    one, four = ask(session).modelled_device_ns, ask(session, ROWS).modelled_device_ns
    assert 1_000_000 < one < 1_100_000
    assert four == pytest.approx(4 * one, rel=0.01)


def test_a_paced_session_answers_when_the_modelled_time_has_passed(opened, monkeypatch):
    clock, waited = SetClock(), []
    session = opened(FpgaEmulatorBackend(clock), pace=True, overhead_us=5000)
    monkeypatch.setattr(session, "_closing", type("Closing", (), {"wait": waited.append, "set": lambda self: None})())
    modelled_ns = ask(session).modelled_device_ns
    assert waited == [modelled_ns / 1e9]


def test_closing_ends_a_paced_wait(opened):
    session = opened(pace=True, overhead_us=60e6)
    running = threading.Thread(target=ask, args=(session,))
    running.start()
    session.close()
    running.join(30)
    assert not running.is_alive()


def test_the_card_is_programming_while_it_is_flashed_and_says_for_how_long(artifact, lease, tmp_path, opened):
    clock, seen = SetClock(), []

    def wait(seconds):
        clock.ns += round(seconds * 0.75e9)
        seen.append((seconds, backend.health(DEVICE)))

    backend = FpgaEmulatorBackend(clock, wait)
    assert backend.health(DEVICE).state is DeviceState.READY
    opened(backend, flash_s=8)
    ((seconds, during),) = seen
    assert seconds == 8
    assert during.state is DeviceState.PROGRAMMING
    assert during.reason == "fpga-emulator:0 is being programmed with classifier:1: 2 s left"
    assert backend.health(DEVICE).state is DeviceState.READY


def test_infinities_are_counted_and_told_once(opened, caplog):
    session = opened(elementwise="fp16")
    with caplog.at_level(logging.WARNING):
        ask(session, np.full((1, 16), 1e6, np.float32))
        ask(session, np.full((1, 16), 1e6, np.float32))
    assert session.nonfinite_values > 0
    assert len([r for r in caplog.records if "infinities or NaNs" in r.message]) == 1


def test_saturating_halves_stay_finite(opened):
    session = opened(elementwise="fp16", fp16_overflow="saturate")
    ask(session, np.full((1, 16), 1e6, np.float32))
    assert session.nonfinite_values == 0


def test_a_not_a_number_in_a_row_reaches_the_answer_and_is_counted(opened):
    session = opened()
    rows = ROWS[:1].copy()
    rows[0, 3] = np.nan
    assert np.isnan(ask(session, rows).outputs["scores"]).all()
    assert session.nonfinite_values == 4


def test_a_second_preparation_comes_from_the_cache(opened, tmp_path):
    opened()
    (entry,) = [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    made = (entry / "device.onnx").stat().st_mtime_ns
    opened()
    assert (entry / "device.onnx").stat().st_mtime_ns == made


@pytest.mark.parametrize("damage", ["cut", "changed", "no report", "gone"])
def test_a_damaged_entry_of_the_cache_is_made_again_and_told(opened, tmp_path, caplog, damage):
    before = ask(opened()).outputs["scores"]
    (entry,) = [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    device = entry / "device.onnx"
    data = device.read_bytes()
    if damage == "cut":
        device.write_bytes(data[:-5])
    elif damage == "changed":
        device.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "gone":
        device.unlink()
    else:
        told = json.loads((entry / FILE_NAME).read_text())
        (entry / FILE_NAME).write_text(json.dumps({**told, "report": {}}))
    with caplog.at_level(logging.WARNING):
        after = ask(opened()).outputs["scores"]
    np.testing.assert_array_equal(after, before)
    assert "made again for the emulated card" in caplog.text


def test_the_operator_that_the_card_lacks_is_named_with_its_layer(tmp_path, artifact):
    model = ModelProto.FromString(artifact.path.read_bytes())
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Erf"
    artifact.path.write_bytes(model.SerializeToString())
    cache = FolderArtifactCache(tmp_path / "cache")
    with pytest.raises(ScoringError, match='classifier:1: the FPGA does not take Erf "relu"') as refusal:
        FpgaEmulatorBackend().prepare(artifact, DEVICE, SessionOptions(), cache, lambda what, done: None)
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_runtime_that_computes_otherwise_is_refused_when_the_model_loads(opened, monkeypatch):
    class Otherwise:
        def __init__(self, session):
            self._session = session

        def run(self, names, inputs):
            made = self._session.run(names, inputs)
            return [np.nextafter(each, np.float32(9)) if each.dtype == np.float32 else each for each in made]

    open_rightly = backend_module._open
    monkeypatch.setattr(backend_module, "_open", lambda *arguments: Otherwise(open_rightly(*arguments)))
    with pytest.raises(ScoringError, match=r"does not compute bfp.* as it is defined") as refusal:
        opened()
    assert refusal.value.kind is Kind.PRECONDITION


def test_weights_in_a_file_beside_the_model_are_read(tmp_path, artifact, opened):
    before = ask(opened()).outputs["scores"]
    model = ModelProto.FromString(artifact.path.read_bytes())
    data = b""
    for tensor in model.graph.initializer:
        where = {"location": "weights.bin", "offset": str(len(data)), "length": str(len(tensor.raw_data))}
        data += tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = 1
        for key, value in where.items():
            tensor.external_data.add(key=key, value=value)
    artifact.path.write_bytes(model.SerializeToString())
    (tmp_path / "weights.bin").write_bytes(data)
    np.testing.assert_array_equal(ask(opened()).outputs["scores"], before)
    (tmp_path / "weights.bin").write_bytes(data[:-8] + b"\1" * 4)
    with pytest.raises(ScoringError, match=r"weights\.bin cannot be read: want \d+ bytes, got \d+$"):
        opened()

"""A converted model on the cards' back ends, played, and on OpenVINO's CPU: pictures, device part, host tail."""

import numpy as np
import pytest
from converted_models import PICTURES, converted, expected
from played_fpga import PROVIDER, THE_CARD, Machine
from played_openvino import THE_FPGA, FpgaHost

from accelserve.backends.accel_onnx.card_session import TAIL_PLACE
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Batch, DecodedFor, ModelArtifact, SessionOptions
from accelserve.backends.host import cpu_device
from accelserve.backends.openvino.backend import OpenVinoBackend
from accelserve.errors import Kind, ScoringError

ROWS = np.random.default_rng(1).normal(size=(3, 8, 8, 3)).astype(np.float32)


class Place:
    """A back end on a device, and how it loads the converted model."""

    def __init__(self, backend, device, folder, settings) -> None:
        self.backend, self.device, self.settings = backend, device, settings
        self.path = converted(folder / "converted")
        self.cache = FolderArtifactCache(folder / "cache")

    def load(self, **extra):
        options = SessionOptions(threads=1, extra={**self.settings, **extra})
        artifact = ModelArtifact("m", 3, "accelonnx", self.path)
        assert "accelonnx" in self.backend.capabilities(self.device, options).formats
        prepared = self.backend.prepare(artifact, self.device, options, self.cache, lambda what, done: None)
        lease = type("Lease", (), {"device_id": self.device.id, "release": lambda self: None})()
        return self.backend.load(prepared, self.device, options, lease)


def on_vitis(folder):
    machine = Machine(folder / "host").plug()
    machine.runtime.taken |= {"Transpose", "GlobalAveragePool", "Flatten"}
    return Place(machine.backend, THE_CARD, folder, {"max_batch": 4})


def on_openvino_fpga(folder):
    host = FpgaHost(folder)
    host.core.taken |= {"Transpose", "ReduceMean", "Reshape", "Flatten", "GroupConvolution"}
    return Place(host.backend, THE_FPGA, folder, {"max_batch": 4})


def on_openvino_cpu(folder):
    return Place(OpenVinoBackend(), cpu_device(), folder, {})


@pytest.fixture(params=[on_vitis, on_openvino_fpga, on_openvino_cpu])
def place(request, tmp_path):
    return request.param(tmp_path)


def test_decoded_pictures_go_through_device_and_tail(place):
    session = place.load()
    assert isinstance(session, DecodedFor)
    decoded = session.take_decoded("serving_default")
    assert decoded.preprocessing == PICTURES
    answer = session.run(Batch(decoded.signature.name, {"images": ROWS}, ("scores",), 3)).outputs["scores"]
    np.testing.assert_allclose(answer, expected(place.path, ROWS), rtol=1e-4, atol=1e-6)


def test_no_pictures_are_answered_with_no_scores(place):
    session = place.load()
    decoded = session.take_decoded("serving_default")
    answer = session.run(Batch(decoded.signature.name, {"images": ROWS[:0]}, ("scores",), 0)).outputs["scores"]
    assert answer.shape == (0, 3)


def test_encoded_pictures_never_reach_the_device(place):
    session = place.load()
    pictures = np.array([b"\xff\xd8"], object)
    with pytest.raises(ScoringError, match="decoded before they reach the device") as refusal:
        session.run(Batch("serving_default", {"images": pictures}, ("scores",), 1))
    assert refusal.value.kind is Kind.UNSUPPORTED


def test_the_placement_tells_the_tail_apart(place):
    nodes = place.load().placement.nodes
    assert nodes[TAIL_PLACE] >= 2
    assert set(nodes) - {TAIL_PLACE} in ({PROVIDER}, {"FPGA"}, {"CPU"})


def test_a_damaged_folder_is_refused_with_the_remedy(place):
    (place.path / "tail.onnx").write_bytes(b"")
    with pytest.raises(ScoringError, match="accelserve convert --to accelonnx") as refusal:
        place.load()
    assert refusal.value.kind is Kind.PRECONDITION


@pytest.mark.parametrize("make", [on_vitis, on_openvino_fpga])
def test_a_boundary_is_for_plain_files(make, tmp_path):
    with pytest.raises(ScoringError, match="divided when it was converted") as refusal:
        make(tmp_path).load(device_outputs=["r"])
    assert refusal.value.kind is Kind.INVALID


@pytest.mark.parametrize("make", [on_vitis, on_openvino_fpga])
def test_a_boundary_that_is_no_list_of_names_is_refused(make, tmp_path):
    with pytest.raises(ScoringError, match='setting "device_outputs" wants a list of names') as refusal:
        make(tmp_path).load(device_outputs="r")
    assert refusal.value.kind is Kind.INVALID

"""OpenVINO's FPGA device, played: layers asked before compiling, devices checked after, nothing on the CPU unseen."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from played_openvino import LOST, THE_FPGA, FpgaHost, PlayedCore

import model_builders
from accelserve.backends.accel_onnx.card_session import TAIL_PLACE
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Backend, Batch, DeviceState, Session, SessionOptions
from accelserve.backends.openvino.backend import OpenVinoBackend
from accelserve.backends.openvino.conformance_sample import OpenVinoOnFpgaSample
from accelserve.backends.openvino.devices import OpenVinoHost
from accelserve.backends.openvino.library import installed_openvino
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError


@pytest.fixture
def host(tmp_path):
    return FpgaHost(tmp_path)


@pytest.fixture
def cache(tmp_path):
    return FolderArtifactCache(tmp_path / "cache")


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    return model_builders.onnx_mlp(tmp_path_factory.mktemp("mlp") / "m.onnx", features=16)


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)


def ask(session, images: np.ndarray) -> np.ndarray:
    return session.run(Batch("serving_default", {"images": images}, ("scores",), len(images))).outputs["scores"]


class TestPlayedFpga(OpenVinoOnFpgaSample):
    """The kit on a played FPGA that takes batches of up to four rows."""

    @pytest.fixture(autouse=True)
    def _host(self, tmp_path):
        self.host = FpgaHost(tmp_path)

    def make_backend(self) -> Backend:
        return self.host.backend

    def options(self) -> SessionOptions:
        return SessionOptions(threads=1, max_batch_size=4, extra={"max_batch": 4})

    def lose_device(self, session: Session) -> None:
        self.host.core.failure = LOST


def test_what_the_library_lists_as_fpga_is_an_exclusive_device(host):
    assert THE_FPGA in host.backend.inventory().devices


def test_a_host_without_an_fpga_names_card_and_plug_in(tmp_path):
    backend = OpenVinoBackend(OpenVinoHost(installed_openvino, tmp_path, {}))
    card, plugin = backend.inventory().missing[DeviceKind.FPGA]
    assert "no Altera FPGA card" in card
    assert "it lists CPU" in plugin
    assert "ACCELSERVE_OPENVINO_PLUGINS" in plugin


@pytest.mark.parametrize(("vendor", "kind"), [("0x1172", "0xff0000"), ("0x8086", "0x120000")])
def test_a_card_without_its_plug_in_lacks_only_that(tmp_path, vendor, kind):
    folder = tmp_path / "bus" / "pci" / "devices" / "0000:3b:00.0"
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "class").write_text(f"{kind}\n")
    missing = OpenVinoBackend(OpenVinoHost(installed_openvino, tmp_path, {})).inventory().missing[DeviceKind.FPGA]
    assert len(missing) == 1
    assert "OpenVINO lists no FPGA" in missing[0]


def test_the_plug_ins_that_the_environment_names_are_registered(tmp_path):
    made: list[PlayedCore] = []

    def core(*plugins: str) -> PlayedCore:
        made.append(PlayedCore(*plugins))
        return made[-1]

    OpenVinoBackend(
        OpenVinoHost(lambda: SimpleNamespace(Core=core), tmp_path, {"ACCELSERVE_OPENVINO_PLUGINS": "/opt/p.xml"})
    )
    assert [each.plugins for each in made] == ["/opt/p.xml"]


def test_a_model_is_compiled_for_the_fpga_alone_with_its_plug_ins_properties(host, cache, mlp, tmp_path):
    session = host.load(mlp, cache, properties={"ARCH": "/opt/a.arch"})
    ((target, properties),) = host.core.compiled
    assert (target, properties["ARCH"]) == ("FPGA", "/opt/a.arch")
    assert Path(properties["CACHE_DIR"]).is_relative_to(tmp_path / "cache")
    assert list(session.placement.nodes) == ["FPGA", TAIL_PLACE]
    assert session.remarks == ()


def test_layers_that_the_fpga_does_not_take_are_refused_by_name_before_compiling(host, cache, mlp):
    host.core.taken = frozenset({"MatMul", "Add", "Multiply"})
    with pytest.raises(ScoringError, match=r'FPGA does not take "r" \(Relu\): .*fallback = "partial"') as refusal:
        host.load(mlp, cache)
    assert refusal.value.kind is Kind.PRECONDITION
    assert host.core.compiled == []


def test_a_partial_fallback_is_shared_out_and_told(host, cache, mlp):
    host.core.taken = frozenset({"MatMul", "Add", "Multiply"})
    session = host.load(mlp, cache, fallback="partial")
    assert host.core.compiled[0][0] == "HETERO:FPGA,CPU"
    assert session.placement.nodes["CPU"] == 1
    assert session.remarks == ('1 layers run on the CPU and not on the FPGA: "r" (Relu)',)


def test_a_model_of_which_nothing_runs_on_the_fpga_is_refused_even_so(host, cache, mlp):
    host.core.taken = frozenset()
    with pytest.raises(ScoringError, match="would run no layer on the FPGA") as refusal:
        host.load(mlp, cache, fallback="partial")
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_compiled_model_that_took_the_cpu_all_the_same_is_refused(host, cache, mlp):
    host.core.disloyal = ["CPU"]
    with pytest.raises(ScoringError, match="was told to use FPGA and took CPU") as refusal:
        host.load(mlp, cache)
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_the_device_is_being_programmed_while_the_model_is_compiled(host, cache, mlp):
    states = []
    host.core.compiling = lambda: states.append(host.backend.health(THE_FPGA).state)
    host.load(mlp, cache)
    assert states == [DeviceState.PROGRAMMING]
    assert host.backend.health(THE_FPGA).state is DeviceState.READY


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (LOST, Kind.DEVICE_MISSING),
        (RuntimeError("not enough DDR for the weights"), Kind.DEVICE_MEMORY),
        (RuntimeError("Exception from a.cpp:3:\nno such architecture"), Kind.PRECONDITION),
    ],
)
def test_a_model_that_does_not_compile_says_why(host, cache, mlp, failure, kind):
    host.core.compile_failure = failure
    with pytest.raises(ScoringError) as refusal:
        host.load(mlp, cache)
    assert refusal.value.kind is kind
    assert "Exception from" not in refusal.value.message


def test_a_batch_is_padded_to_the_size_that_the_model_was_compiled_for(host, cache, mlp):
    session = host.load(mlp, cache, max_batch=4)
    np.testing.assert_allclose(
        ask(session, rows(3)), np.concatenate([ask(session, rows(3)[i : i + 1]) for i in (0, 1, 2)])
    )


def test_a_compiled_model_that_was_changed_on_disk_is_not_used(host, cache, mlp):
    found = []

    def compile_here() -> None:
        kept = Path(host.core.compiled[-1][1]["CACHE_DIR"]) / "1.blob"
        found.append(kept.exists())
        kept.write_bytes(b"compiled")

    host.core.compiling = compile_here
    for _ in range(2):
        host.load(mlp, cache).close()
    (Path(host.core.compiled[-1][1]["CACHE_DIR"]) / "1.blob").write_bytes(b"compiler")
    host.load(mlp, cache).close()
    assert found == [False, True, False]


def test_an_fpga_takes_one_row_and_one_model_unless_told_otherwise(host):
    limits = host.backend.capabilities(THE_FPGA, SessionOptions(extra={"numerics": "FP11"}))
    assert (limits.max_batch, limits.models_per_device, limits.max_inflight, limits.numerics) == (1, 1, 1, "FP11")

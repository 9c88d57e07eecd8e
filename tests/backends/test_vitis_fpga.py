"""The VitisAI back end on a played machine: what is missing, what it loads, and that nothing runs on the CPU unseen."""

import numpy as np
import onnxruntime
import pytest
from played_fpga import LOST, PROVIDER, THE_CARD, Machine, PlayedVitis

import model_builders
from accelserve.backends.accel_onnx.card_session import TAIL_PLACE
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Backend, Batch, DeviceState, ModelArtifact, Session, SessionOptions
from accelserve.backends.vitis_fpga.conformance_sample import VitisFpgaSample
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path / "host").plug()


@pytest.fixture(scope="module")
def mlp(tmp_path_factory):
    return model_builders.onnx_mlp(tmp_path_factory.mktemp("mlp") / "m.onnx", features=16)


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 16)).astype(np.float32)


def ask(session, images: np.ndarray) -> np.ndarray:
    return session.run(Batch("serving_default", {"images": images}, ("scores",), len(images))).outputs["scores"]


class TestPlayedVitis(VitisFpgaSample):
    """The kit on a played card that takes batches of up to four rows."""

    @pytest.fixture(autouse=True)
    def _machine(self, tmp_path):
        self.machine = Machine(tmp_path / "host").plug()

    def make_backend(self) -> Backend:
        return self.machine.backend

    def options(self) -> SessionOptions:
        return SessionOptions(threads=1, max_batch_size=4, extra={"max_batch": 4})

    def lose_device(self, session: Session) -> None:
        self.machine.runtime.failure = LOST


# --- what is missing


def test_a_bare_host_names_every_missing_piece_at_once(tmp_path):
    machine = Machine(tmp_path, runtime=onnxruntime, libraries=())
    machine.environ.clear()
    inventory = machine.backend.inventory()
    assert inventory.devices == ()
    missing = "; ".join(inventory.missing[DeviceKind.FPGA])
    for piece in (
        "no AMD FPGA card",
        "XRT library libxrt_coreutil.so.2 not found",
        "XRT library libxrt_core.so.2 not found",
        f"onnxruntime {onnxruntime.__version__} is built without VitisAIExecutionProvider",
        "no xclbin is named: set XLNX_VART_FIRMWARE",
    ):
        assert piece in missing


def test_a_host_without_onnx_runtime_says_so(tmp_path):
    machine = Machine(tmp_path).plug()
    machine.runtime = None
    assert "python package 'onnxruntime' is not installed" in machine.backend.inventory().missing[DeviceKind.FPGA][0]


def test_xrt_beside_the_loaders_path_is_told_with_the_remedy(tmp_path):
    machine = Machine(tmp_path / "host", libraries=("libxrt_coreutil.so.2",)).plug()
    (tmp_path / "xrt" / "lib").mkdir(parents=True)
    (tmp_path / "xrt" / "lib" / "libxrt_core.so.2").touch()
    machine.environ["XILINX_XRT"] = str(tmp_path / "xrt")
    (missing,) = machine.backend.inventory().missing[DeviceKind.FPGA]
    assert f"source {tmp_path}/xrt/setup.sh" in missing


def test_a_complete_host_has_the_card_as_an_exclusive_device(machine):
    inventory = machine.backend.inventory()
    assert inventory.devices == (THE_CARD,)
    assert inventory.missing == {}
    assert machine.backend.health(THE_CARD).state is DeviceState.READY


def test_a_model_that_names_files_that_are_not_there_is_refused_naming_them_all(machine, mlp):
    machine.environ.clear()
    with pytest.raises(ScoringError, match=r"no xclbin is named.*config_file /nowhere/c.json is not there") as refusal:
        machine.load(mlp, config_file="/nowhere/c.json")
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_a_card_that_was_taken_out_is_missing(machine, mlp):
    (machine.dev / "dri" / "renderD128").unlink()
    with pytest.raises(ScoringError, match=r"needs fpga:0000:65:00.0: device node") as refusal:
        machine.load(mlp)
    assert refusal.value.kind is Kind.DEVICE_MISSING


# --- never on the CPU unseen


def test_only_the_provider_is_listed_and_it_gets_its_settings(machine, mlp, tmp_path):
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / "key").write_text("sesame\n")
    machine.load(
        mlp,
        xclbin=str(machine.xclbin),
        config_file=str(tmp_path / "c.json"),
        cache_key="k",
        target="X2",
        encryption_key_file=str(tmp_path / "key"),
    )
    assert machine.runtime.opened == [
        [
            (
                PROVIDER,
                {
                    "xclbin": str(machine.xclbin),
                    "cache_dir": str(machine.xclbin.parent / "compiled"),
                    "cache_key": "k",
                    "config_file": str(tmp_path / "c.json"),
                    "target": "X2",
                    "encryptionKey": "sesame",
                },
            )
        ]
    ]


def test_an_xclbin_of_the_environment_is_left_to_the_library_underneath(machine, mlp):
    machine.load(mlp)
    assert machine.runtime.opened == [
        [(PROVIDER, {"cache_dir": str(machine.xclbin.parent / "compiled"), "cache_key": "model"})]
    ]


def test_the_encryption_key_is_never_told(machine, mlp, tmp_path, caplog):
    (tmp_path / "key").write_text("sesame\n")
    machine.runtime.load_failure = RuntimeError("provider options: encryptionKey=sesame is wrong")
    with pytest.raises(ScoringError) as refusal:
        machine.load(mlp, encryption_key_file=str(tmp_path / "key"))
    assert "sesame" not in refusal.value.message + caplog.text


def test_a_model_with_layers_that_the_card_does_not_take_is_refused(machine, mlp):
    machine.runtime.taken = frozenset({"Gemm"})
    with pytest.raises(ScoringError, match=r'the FPGA does not take ".*" \(Relu\): .*fallback = "partial"') as refusal:
        machine.load(mlp)
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_partial_fallback_is_allowed_on_request_and_told(machine, mlp):
    machine.runtime.taken = frozenset({"Gemm"})
    session = machine.load(mlp, fallback="partial")
    assert session.placement.nodes == {PROVIDER: 2, "CPUExecutionProvider": 1, TAIL_PLACE: 1}
    (remark,) = session.remarks
    assert "1 layers run on the CPU and not on the FPGA" in remark
    assert "Relu" in remark


def test_a_model_of_which_nothing_runs_on_the_card_is_refused_even_so(machine, mlp):
    machine.runtime.taken = frozenset()
    with pytest.raises(ScoringError, match=r"no node is known to run on the FPGA.*wrong cache_key") as refusal:
        machine.load(mlp, fallback="partial")
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_build_that_says_it_has_the_provider_and_warns_and_takes_the_cpu_is_refused(machine, mlp):
    """What ONNX Runtime does with a provider that is not there: a UserWarning, and a session on the CPU."""

    class Lying(PlayedVitis):
        def InferenceSession(self, graph, options, providers, enable_fallback):
            return onnxruntime.InferenceSession(graph, options, providers=["VitisAIExecutionProvider"])

    machine.runtime = Lying()
    with (
        pytest.warns(UserWarning, match="VitisAIExecutionProvider"),
        pytest.raises(ScoringError, match="could not start VitisAIExecutionProvider and took CPU") as refusal,
    ):
        machine.load(mlp, fallback="partial")
    assert refusal.value.kind is Kind.DEVICE_MISSING


# --- states


def test_the_card_is_being_programmed_while_the_session_opens(machine, mlp):
    states = []
    machine.runtime.opening = lambda: states.append(machine.backend.health(THE_CARD))
    machine.load(mlp)
    assert states[0].state is DeviceState.PROGRAMMING
    assert "dpu.xclbin is being loaded for m:3" in states[0].reason
    assert machine.backend.health(THE_CARD).state is DeviceState.READY


def test_a_card_that_does_not_come_up_is_no_longer_being_programmed(machine, mlp):
    machine.runtime.load_failure = RuntimeError("xclLoadXclBin failed: Invalid argument")
    with pytest.raises(ScoringError, match="xclLoadXclBin") as refusal:
        machine.load(mlp)
    assert refusal.value.kind is Kind.PRECONDITION
    assert machine.backend.health(THE_CARD).state is DeviceState.READY


def test_a_card_that_is_lost_in_a_run_is_lost_from_then_on(machine, mlp):
    session = machine.load(mlp)
    machine.runtime.failure = LOST
    with pytest.raises(ScoringError, match="ERT_CMD_STATE_ABORT") as failure:
        ask(session, rows(1))
    assert failure.value.kind is Kind.DEVICE_LOST
    assert machine.backend.health(THE_CARD).state is DeviceState.LOST


def test_a_lost_card_that_loads_again_is_ready(machine, mlp):
    session = machine.load(mlp)
    machine.runtime.failure = LOST
    with pytest.raises(ScoringError):
        ask(session, rows(1))
    machine.runtime.failure = None
    machine.load(mlp)
    assert machine.backend.health(THE_CARD).state is DeviceState.READY


def test_a_failed_run_that_is_no_loss_leaves_the_card_ready(machine, mlp):
    session = machine.load(mlp)
    machine.runtime.failure = RuntimeError("something else")
    with pytest.raises(ScoringError):
        ask(session, rows(1))
    assert machine.backend.health(THE_CARD).state is DeviceState.READY


# --- batches


def test_a_card_takes_one_row_and_one_model_unless_told_otherwise(machine):
    limits = machine.backend.capabilities(THE_CARD, SessionOptions())
    assert (limits.max_batch, limits.models_per_device, limits.max_inflight, limits.numerics) == (1, 1, 1, "int8")


def test_a_batch_is_padded_to_the_size_that_the_model_was_compiled_for(machine, mlp):
    session = machine.load(mlp, max_batch=4)
    alone = ask(session, rows(1))
    assert machine.runtime.runs == [{"images": (4, 16)}]
    np.testing.assert_allclose(ask(session, rows(3))[0], alone[0], rtol=1e-5)


def test_more_rows_than_it_was_compiled_for_are_refused(machine, mlp):
    with pytest.raises(ScoringError, match=r"want at most 1 rows in a run on fpga:.*, got 2") as refusal:
        ask(machine.load(mlp), rows(2))
    assert refusal.value.kind is Kind.INVALID


# --- the compiled model


def test_the_compiled_model_has_a_place_in_the_cache_by_content(machine, mlp, tmp_path):
    cache = FolderArtifactCache(tmp_path / "cache")
    prepared = [
        machine.backend.prepare(
            ModelArtifact("m", 3, "onnx", mlp),
            THE_CARD,
            SessionOptions(extra={"max_batch": size}),
            cache,
            lambda what, done: None,
        )
        for size in (1, 1, 4)
    ]
    assert prepared[0].payload == prepared[1].payload != prepared[2].payload


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"xcl": "a"}, 'vitis_fpga has no setting "xcl"; it has xclbin'),
        ({"xclbin": 3}, 'setting "xclbin" wants a text, got 3'),
        ({"fallback": "emulate"}, 'setting "fallback" wants "forbid" or "partial"'),
        ({"max_batch": 0}, 'setting "max_batch" wants a whole number above 0'),
    ],
)
def test_a_wrong_setting_is_refused_by_name(machine, mlp, extra, words):
    with pytest.raises(ScoringError, match=words) as refusal:
        machine.load(mlp, **extra)
    assert refusal.value.kind is Kind.INVALID

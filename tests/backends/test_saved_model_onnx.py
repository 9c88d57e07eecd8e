import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import accelserve
import saved_models
from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Batch, Device, Inventory, ModelArtifact, SessionOptions
from accelserve.backends.conversion import run_conversion
from accelserve.backends.discovery import BackendPool
from accelserve.backends.host import cpu_device
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.backends.probes import cut_model, saved_model_onnx, tf_session
from accelserve.backends.saved_model_onnx.backend import SavedModelOnnxBackend
from accelserve.devices import DeviceKind, parse_device_request
from accelserve.errors import ExitCode, Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from model_builders import jpeg

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("default")]  # tf2onnx and Keras warn of themselves


class Counting:
    """Converts in this process and counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, *arguments) -> None:
        self.count += 1
        saved_models.convert_here(*arguments)


def prepare(backend, source: Path, cache: Path, model_format: str = "saved_model", steps=None, **extra):
    artifact = ModelArtifact("m", 1, model_format, source)
    options = SessionOptions(extra=extra)
    progress = (lambda what, done: None) if steps is None else lambda what, done: steps.append((what, done))
    return backend.prepare(artifact, backend.inventory().devices[0], options, FolderArtifactCache(cache), progress)


def load(backend, prepared, **extra):
    return backend.load(prepared, backend.inventory().devices[0], SessionOptions(extra=extra), None)


def test_a_model_is_converted_once_and_found_again_by_its_content(tmp_path):
    source, convert = saved_models.mnist_checkpoint(tmp_path / "m"), Counting()
    for _ in range(2):
        prepare(SavedModelOnnxBackend(convert=convert), source, tmp_path / "cache")
    assert convert.count == 1
    prepare(SavedModelOnnxBackend(convert=convert), source, tmp_path / "cache", opset=15)
    assert convert.count == 2, "another opset is another model"


def test_the_conversion_runs_in_a_process_of_its_own_and_tells_its_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(accelserve.__file__).parents[1]))
    source, steps = saved_models.two_inputs_two_outputs(tmp_path / "m"), []
    backend = SavedModelOnnxBackend(convert=run_conversion)
    session = load(backend, prepare(backend, source, tmp_path / "cache", steps=steps))
    inputs = {"numbers": np.ones((2, 4), np.float32), "word": np.array([b"a", b"b"], object)}
    assert session.run(Batch("serving_default", inputs, ("score",), 2)).outputs["score"].shape == (2, 1)
    assert "TensorFlow CPU" in session.placement.nodes
    session.close()
    assert ("comparing with TensorFlow", 0.7) in steps
    assert [done for _, done in steps][-1] == 1.0


def test_a_refusal_passes_through_the_process_with_the_operators_names(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(accelserve.__file__).parents[1]))
    source = saved_models.only_strings(tmp_path / "m")
    with pytest.raises(ScoringError, match=r'nothing is left for the accelerator.*StringUpper "') as error:
        prepare(SavedModelOnnxBackend(), source, tmp_path / "cache")
    assert error.value.kind is Kind.PRECONDITION
    assert not [p for p in (tmp_path / "cache").iterdir() if p.is_dir()], "half an entry is left"


def test_a_broken_cache_entry_is_refused_with_the_folder_to_delete(tmp_path):
    source, backend = saved_models.mnist_checkpoint(tmp_path / "m"), SavedModelOnnxBackend(convert=Counting())
    prepare(backend, source, tmp_path / "cache")
    (onnx,) = (tmp_path / "cache").glob("*/model/model.onnx")
    onnx.write_bytes(onnx.read_bytes()[:100])
    entry = onnx.parents[1]
    with pytest.raises(ScoringError, match=f"model.onnx has 100 bytes.*delete {entry} and it is made again") as error:
        prepare(backend, source, tmp_path / "cache")
    assert error.value.kind is Kind.PRECONDITION


def test_the_conversion_of_what_changed_meanwhile_is_not_kept(tmp_path):
    source = saved_models.mnist_checkpoint(tmp_path / "m")

    def convert(*arguments) -> None:
        saved_models.convert_here(*arguments)
        (source / "saved_model.pb").write_bytes((source / "saved_model.pb").read_bytes() + b"\n")

    with pytest.raises(ScoringError, match=r"m:1: .*m changed while it was converted"):
        prepare(SavedModelOnnxBackend(convert=convert), source, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_a_dense_model_never_imports_tensorflow(tmp_path):
    source = saved_models.mnist_checkpoint(tmp_path / "m")
    saved_models.convert_here("m", source, tmp_path / "cut", saved_models.Defaults(), lambda what, done: None)
    program = f"""
import pathlib, sys, numpy as np
from accelserve.backends.base import Batch, ModelArtifact, SessionOptions
from accelserve.backends.saved_model_onnx.backend import SavedModelOnnxBackend
backend = SavedModelOnnxBackend()
device, options = backend.inventory().devices[0], SessionOptions()
artifact = ModelArtifact("m", 1, "cut", pathlib.Path({str(tmp_path / "cut")!r}))
session = backend.load(backend.prepare(artifact, device, options, None, print), device, options, None)
batch = Batch("serving_default", {{"images": np.ones((1, 784), np.float32)}}, ("scores",), 1)
assert session.run(batch).outputs["scores"].shape == (1, 10)
sys.exit("tensorflow" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(accelserve.__file__).parents[1])}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=60).returncode == 0


def test_on_the_cpu_tensorflow_stays_the_choice():
    pool = BackendPool(sorted([saved_model_onnx(), tf_session()], key=lambda offer: -offer.preference))
    artifact = ModelArtifact("m", 1, "saved_model", Path("m"))
    for wanted in ("cpu", "auto") if not _has_gpu() else ("cpu",):
        assert pool.choose(artifact, parse_device_request(wanted))[0].name == "tf_session"


def test_alone_it_serves_saved_models_on_the_cpu():
    backend, (device,) = BackendPool([saved_model_onnx()]).choose(
        ModelArtifact("m", 1, "saved_model", Path("m")), parse_device_request("cpu")
    )
    assert (backend.name, device.id) == ("saved_model_onnx", "cpu:0")


def _has_gpu() -> bool:
    return any(d.kind is DeviceKind.GPU for d in SavedModelOnnxBackend().inventory().devices)


def test_a_required_gpu_that_is_not_there_is_refused_by_the_missing_piece():
    if _has_gpu():
        pytest.skip("this host has a GPU")
    pool = BackendPool([tf_session(), saved_model_onnx()])
    with pytest.raises(ScoringError, match=r"saved_model_onnx: .*onnxruntime-gpu") as error:
        pool.choose(ModelArtifact("m", 1, "saved_model", Path("m")), parse_device_request("gpu"))
    assert error.value.kind is Kind.DEVICE_MISSING


class PlayedGpu(OnnxRuntimeBackend):
    """ONNX Runtime's back end on a GPU that is played by the CPU."""

    GPU = Device("gpu:0", DeviceKind.GPU, "played")

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[tuple[str, Device]] = []

    def inventory(self) -> Inventory:
        return Inventory((self.GPU,))

    def prepare(self, artifact, device, options, cache, progress):
        return super().prepare(artifact, cpu_device(), options, cache, progress)

    def load(self, prepared, device, options, lease):
        self.loaded.append((prepared.artifact.path.name, device))
        return super().load(prepared, cpu_device(), options, lease)


def test_the_dense_part_goes_to_the_gpu_and_the_session_says_so(tmp_path):
    onnx = PlayedGpu()
    backend = SavedModelOnnxBackend(onnx, Counting())
    session = load(backend, prepare(backend, saved_models.word_tables(tmp_path / "m"), tmp_path / "cache"))
    assert onnx.loaded == [("model.onnx", onnx.GPU)]
    assert session.device == onnx.GPU
    assert session.placement.nodes["TensorFlow CPU"] == 6, "what TensorFlow keeps is told beside the provider's nodes"
    session.close()


def test_a_keras_classifier_takes_pixels_and_answers_as_for_the_hosts_floats(tmp_path):
    backend = SavedModelOnnxBackend(convert=Counting())
    session = load(backend, prepare(backend, saved_models.keras_classifier(tmp_path / "m"), tmp_path / "cache"))
    steps = Preprocessing((saved_models.SIDE, saved_models.SIDE), mean=(10.0, 20.0, 30.0), scale=(0.9,))
    taken = {name: session.take_pixels(name, steps) for name in session.signatures}
    pixels = np.random.default_rng(1).integers(0, 256, (2, saved_models.SIDE, saved_models.SIDE, 3), np.uint8)
    floats = (pixels.astype(np.float32) - np.float32(steps.mean)) * np.float32(steps.scale)
    for name, signature in session.signatures.items():
        (image,), outputs = signature.inputs, tuple(signature.outputs)
        of_pixels, of_floats = (
            session.run(Batch(asked, {image: rows}, outputs, 2)).outputs
            for asked, rows in ((taken[name].name, pixels), (name, floats))
        )
        for output in outputs:
            np.testing.assert_array_equal(of_pixels[output], of_floats[output])
    assert not {found.name for found in taken.values()} & set(session.signatures)
    session.close()


def test_a_model_that_cannot_be_cut_does_not_load_on_a_gpu_and_ends_with_3(tmp_path):
    backend = SavedModelOnnxBackend(PlayedGpu(), Counting())
    with pytest.raises(ScoringError, match=r'StringUpper ".*serve it with TensorFlow on the CPU') as error:
        prepare(backend, saved_models.only_strings(tmp_path / "m"), tmp_path / "cache")
    assert ExitCode.of(error.value.kind) == ExitCode.LOAD_FAILED


def test_a_picture_that_cannot_be_decoded_is_the_clients_fault_and_the_session_lives(tmp_path):
    backend = SavedModelOnnxBackend(convert=Counting())
    session = load(backend, prepare(backend, saved_models.tf1_jpeg(tmp_path / "m"), tmp_path / "cache"))

    def ask(*pictures: bytes):
        batch = Batch("serving_default", {"images": np.array(pictures, object)}, ("scores",), len(pictures))
        return session.run(batch).outputs["scores"]

    with pytest.raises(ScoringError) as error:
        ask(jpeg(), b"no picture")
    assert error.value.kind is Kind.UNDECODABLE
    assert ask(jpeg()).shape == (1, 3)
    session.close()


def test_signatures_that_are_left_out_are_remarked(tmp_path):
    backend = SavedModelOnnxBackend(convert=Counting())
    session = load(backend, prepare(backend, saved_models.several_signatures(tmp_path / "m"), tmp_path / "cache"))
    assert set(session.signatures) == {"serving_default", "same", "examples"}
    assert any('signature "text" is left out: nothing is left' in remark for remark in session.remarks)
    assert any("host.pb on the CPU, " in remark for remark in session.remarks)
    session.close()


def test_what_was_opened_is_closed_when_a_later_part_does_not_load(tmp_path):
    backend = SavedModelOnnxBackend(convert=Counting())
    prepared = prepare(backend, saved_models.word_tables(tmp_path / "m"), tmp_path / "cache")
    host = next((tmp_path / "cache").glob("*/model/*/host.pb"))
    host.write_bytes(b"\xff" * host.stat().st_size)
    with pytest.raises(ScoringError, match=r"the part .*host\.pb does not load") as error:
        load(backend, prepared)
    assert error.value.kind is Kind.PRECONDITION


@pytest.mark.parametrize(("probe", "lacks"), [(saved_model_onnx, "tf2onnx"), (saved_model_onnx, "tensorflow")])
def test_without_the_converter_it_is_not_on_offer(probe, lacks):
    offer = probe(lambda package: None if package == lacks else object())
    assert f"'{lacks}' is not installed: pip install 'accelserve[convert]'" in offer.unavailable


def test_a_converted_model_needs_no_converter():
    assert cut_model(lambda package: None if package in ("tf2onnx", "tensorflow") else object()).unavailable == ""


def test_settings_of_the_conversion_are_checked_and_others_are_onnx_runtimes(tmp_path):
    source, backend = saved_models.mnist_checkpoint(tmp_path / "m"), SavedModelOnnxBackend(convert=Counting())
    with pytest.raises(ScoringError, match='setting "opset" wants a number from 13'):
        prepare(backend, source, tmp_path / "cache", opset="seventeen")
    prepared = prepare(backend, source, tmp_path / "cache")
    load(backend, prepared, spinning=True).close()

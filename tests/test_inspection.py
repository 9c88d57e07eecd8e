"""What `accelserve show` and `accelserve devices` tell."""

import json

import pytest
from onnx import TensorProto
from small_networks import scorer

from accelserve.backends.base import DeviceKind, Offer
from accelserve.backends.discovery import BackendPool
from accelserve.backends.probes import onnx_runtime, synthetic
from accelserve.builtin import digits_path
from accelserve.errors import Kind, ScoringError
from accelserve.inspection import describe_devices, describe_model, devices_as_text, model_as_text
from accelserve.models.loading import Loader
from model_builders import onnx_affine


def loader(tmp_path):
    from accelserve.backends.artifact_cache import FolderArtifactCache
    from accelserve.codecs.round_trip import check_round_trip

    pool = BackendPool([onnx_runtime(), synthetic()])
    return Loader(pool, FolderArtifactCache(tmp_path / "cache"), tmp_path / "leases", check_round_trip)


def test_show_says_what_a_picture_model_takes_gives_and_does(tmp_path):
    about = describe_model(loader(tmp_path), digits_path(), None)
    text = model_as_text(about)
    for part in ("image: uint8[-1,32,32,3]", "scores: float32[-1,10]", "resize       stretch", "size         32 32"):
        assert part in text
    assert "labels         10" in text
    assert "passed: codec round trip" in text
    assert about["preprocessing"]["serving_default"]["source"] == "accelserve.toml"
    assert about["device"]["id"] == "cpu:0"
    json.dumps(about)


def test_show_of_a_plain_model_has_no_pictures(tmp_path):
    text = model_as_text(describe_model(loader(tmp_path), onnx_affine(tmp_path / "m.onnx"), "cpu"))
    assert "pictures" not in text
    assert "labels         none" in text
    assert "up to 32 rows, delay none" in text


def test_show_tells_a_latency_objective(tmp_path):
    path = onnx_affine(tmp_path / "m.onnx")
    (tmp_path / "m.accelserve.toml").write_text("[batching]\nlatency_slo_ms = 2.5\n")
    assert "up to 32 rows, answers within 2.5 ms" in model_as_text(describe_model(loader(tmp_path), path, "cpu"))


def test_show_of_nothing_is_not_found(tmp_path):
    with pytest.raises(ScoringError) as caught:
        describe_model(loader(tmp_path), tmp_path / "nowhere.onnx", None)
    assert caught.value.kind is Kind.NOT_FOUND


def test_devices_names_what_is_there_and_what_is_missing():
    broken = Offer("broken", frozenset({"vai"}), frozenset({DeviceKind.FPGA}), "", unavailable="no card in this host")
    about = describe_devices(BackendPool([synthetic(), broken]))
    text = devices_as_text(about)
    assert "synthetic (runs synthetic)" in text
    assert "cpu:0" in text
    assert "no fpga" in text
    assert "no card in this host" in text
    json.dumps(about)


def test_devices_on_a_host_without_a_gpu_says_what_is_missing_and_which_packages_are_there():
    about = describe_devices(BackendPool([onnx_runtime()]), gpu_less)
    assert about["nvidia"]["gpus"] == {}
    assert any(name.startswith("onnxruntime") for name in about["packages"])
    text = devices_as_text(about)
    assert "no NVIDIA GPU: NVIDIA driver library libcuda.so.1 not found" in text
    assert set(about["backends"]["onnx_runtime"]["features"]) == {"TensorRT", "fp16"}
    assert "fp16             can be used" in text
    json.dumps(about)


def gpu_less(name: str) -> object:
    raise OSError(f"{name}: cannot open shared object file: No such file or directory")


def test_devices_on_a_host_with_gpus_tells_driver_memory_and_load():
    nvidia = {
        "driver": "580.65.06",
        "cuda": "13.0",
        "missing": [],
        "gpus": {
            "gpu:0": {
                "uuid": "GPU-1",
                "memory_total_bytes": 16 * 2**30,
                "memory_free_bytes": 12 * 2**30,
                "utilization": 0.25,
            }
        },
    }
    text = devices_as_text({"nvidia": nvidia, "packages": {"onnxruntime-gpu": "1.31.1"}, "backends": {}})
    assert text.splitlines() == [
        "NVIDIA driver 580.65.06, CUDA 13.0",
        "  gpu:0            12.0 of 16.0 GiB free, 25% busy (GPU-1)",
        "packages: onnxruntime-gpu 1.31.1",
    ]


@pytest.mark.parametrize(("key", "place"), [("", "host"), ('normalize = "device"', "device")])
def test_show_says_where_pictures_are_normalised(tmp_path, key, place):
    path = scorer(tmp_path / "m.onnx", TensorProto.FLOAT, 4, 6, 3)
    (tmp_path / "m.accelserve.toml").write_text(f"[preprocessing]\nscale = 0.01\n{key}\n")
    about = describe_model(loader(tmp_path), path, "cpu")
    assert f"  normalised   on the {place}\n" in model_as_text(about)
    assert about["preprocessing"]["serving_default"]["normalised"] == f"on the {place}"
    assert list(about["signatures"]) == ["serving_default"]


def test_show_tells_the_error_of_an_fp16_model(tmp_path):
    path = onnx_affine(tmp_path / "m.onnx")
    (tmp_path / "m.accelserve.toml").write_text('[backend]\nprecision = "fp16"\n')
    text = model_as_text(describe_model(loader(tmp_path), path, "cpu"))
    assert "through onnx_runtime, fp16" in text
    assert "remark         fp16 copy of the model: largest error against fp32 " in text


def test_devices_names_a_plug_in_that_does_not_run_and_why():
    installed = Offer("npu", frozenset(), frozenset(), "", unavailable="not allowed: say --backends npu")
    about = describe_devices(BackendPool([installed]))
    assert about["backends"]["npu"]["unavailable"] == "not allowed: say --backends npu"
    assert "npu\n  unavailable      not allowed: say --backends npu" in devices_as_text(about)
    json.dumps(about)


def test_devices_labels_an_emulated_device_and_one_that_only_one_process_can_have():
    device = {"id": "fpga-emulator:0", "name": "card", "memory_bytes": None, "exclusive": True, "emulated": True}
    backend = {"formats": ["onnx"], "devices": [device], "missing": {}, "features": {}, "unavailable": None}
    nvidia = {"missing": ["no driver"], "gpus": {}}
    text = devices_as_text({"nvidia": nvidia, "packages": {}, "backends": {"emulator": backend}})
    assert "  fpga-emulator:0  card, exclusive, emulated" in text

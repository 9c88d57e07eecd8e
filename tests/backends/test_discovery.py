import logging
import sys
from pathlib import Path

import pytest

from accelserve.backends import probes
from accelserve.backends.base import API_VERSION, Device, Inventory, ModelArtifact, Offer
from accelserve.backends.discovery import BackendPool, load_backend
from accelserve.devices import DeviceKind, parse_device_request
from accelserve.errors import Kind, ScoringError

CPU, GPU, FPGA = DeviceKind.CPU, DeviceKind.GPU, DeviceKind.FPGA
HERE = __name__
THE_CPU = Device("cpu:0", CPU, "a CPU")
TWO_GPUS = (Device("gpu:0", GPU, "first"), Device("gpu:1", GPU, "second"))
ONNX = ModelArtifact("m", 1, "onnx", Path("m.onnx"))


class CpuOnly:
    name = "plain"
    kinds = frozenset({CPU, GPU})
    api_version = API_VERSION

    def inventory(self) -> Inventory:
        return Inventory((THE_CPU,), {GPU: ("no GPU build", "no driver")})

    def capabilities(self, *_: object) -> None:
        """Never asked for here; neither are the others."""

    prepare = load = health = capabilities


class WithGpus(CpuOnly):
    name = "gpus"

    def inventory(self) -> Inventory:
        return Inventory((THE_CPU, *TWO_GPUS))


class WithFpga(CpuOnly):
    name = "fpga"
    kinds = frozenset({FPGA, DeviceKind.FPGA_EMULATOR})

    def inventory(self) -> Inventory:
        emulator = Device("fpga-emulator:0", DeviceKind.FPGA_EMULATOR, "emulator", emulated=True)
        return Inventory((Device("fpga:0000:65:00.0", FPGA, "card", exclusive=True), emulator))


class FromTheFuture(CpuOnly):
    api_version = API_VERSION + 1


class Broken(CpuOnly):
    def __init__(self) -> None:
        raise RuntimeError("no such symbol")


def offer(cls: type, **changes: object) -> Offer:
    kinds = {"formats": frozenset({"onnx"}), "device_kinds": cls.kinds}
    return Offer(**{"name": cls.name, "backend": f"{HERE}:{cls.__name__}", **kinds, **changes})


def choose(offers: list[Offer], device: str, artifact: ModelArtifact = ONNX) -> str:
    backend, chosen = BackendPool(offers).choose(artifact, parse_device_request(device))
    return f"{backend.name} on {', '.join(device.id for device in chosen)}"


def test_a_back_end_of_another_interface_version_is_refused():
    with pytest.raises(ScoringError, match=r"version 2 .* version 1") as refusal:
        load_backend(offer(FromTheFuture))
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_back_end_that_does_not_load_says_why():
    with pytest.raises(ScoringError, match="no such symbol"):
        load_backend(offer(Broken))


class Ends(CpuOnly):
    def __init__(self) -> None:
        raise SystemExit(3)


class Rubbish(CpuOnly):
    def inventory(self) -> str:
        return "cpu:0"


class Raises(CpuOnly):
    def inventory(self) -> Inventory:
        raise OSError("the driver does not answer")


class Unfinished(CpuOnly):
    capabilities = prepare = load = health = None


def test_a_back_end_that_lacks_methods_is_refused_naming_them():
    with pytest.raises(ScoringError, match="has no capabilities, prepare, load, health"):
        load_backend(offer(Unfinished))


def test_a_back_end_that_tells_no_version_is_refused():
    with pytest.raises(ScoringError, match=r"speaks version \(none is told\)"):
        load_backend(Offer("odd", frozenset({"onnx"}), frozenset({CPU}), "builtins:object"))


def test_a_back_end_that_would_end_the_process_ends_only_itself():
    with pytest.raises(ScoringError, match="SystemExit: 3"):
        load_backend(offer(Ends))


@pytest.mark.parametrize(("cls", "words"), [(Rubbish, "is str, not an Inventory"), (Raises, "driver does not answer")])
def test_an_inventory_that_fails_is_one_without_devices_that_says_why(cls, words, caplog):
    caplog.set_level(logging.CRITICAL)
    pool = BackendPool([offer(cls)])
    inventory = pool.inventory(pool.offers[0])
    assert inventory.devices == ()
    assert words in inventory.missing[CPU][0]


def test_a_pool_makes_each_back_end_once():
    pool = BackendPool([offer(CpuOnly)])
    assert pool.backend(pool.offers[0]) is pool.backend(pool.offers[0])


def test_auto_takes_a_gpu_where_one_can_be_used():
    assert choose([offer(CpuOnly), offer(WithGpus)], "auto") == "gpus on gpu:0"


def test_auto_takes_the_cpu_where_no_gpu_can_be_used_and_the_log_says_why(caplog):
    with caplog.at_level(logging.INFO):
        assert choose([offer(CpuOnly)], "auto") == "plain on cpu:0"
    assert "no GPU build, no driver" in caplog.text


def test_auto_tells_which_devices_have_to_be_asked_for():
    with pytest.raises(ScoringError, match="it has to be asked for by --device fpga or fpga-emulator"):
        choose([offer(WithFpga)], "auto")


class Heavy(CpuOnly):
    name = "heavy"

    def inventory(self) -> Inventory:
        raise AssertionError("a back end for other devices was made and asked")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_back_end_for_other_devices_is_not_asked(device):
    assert choose([offer(Heavy, device_kinds=frozenset({FPGA})), offer(CpuOnly)], device) == "plain on cpu:0"


def test_only_back_ends_for_the_kind_say_why_there_is_none():
    with pytest.raises(ScoringError) as refusal:
        choose([offer(Heavy, device_kinds=frozenset({FPGA})), offer(CpuOnly)], "gpu")
    assert refusal.value.message == 'model "m" needs gpu: plain: no GPU build, no driver'


def test_auto_never_takes_an_fpga_or_an_emulator():
    with pytest.raises(ScoringError) as refusal:
        choose([offer(WithFpga)], "auto")
    assert refusal.value.kind is Kind.PRECONDITION


def test_the_preferred_of_two_back_ends_runs_the_model():
    offers = sorted([offer(CpuOnly), offer(WithGpus, preference=5)], key=lambda each: -each.preference)
    assert choose(offers, "cpu") == "gpus on cpu:0"


def test_a_numbered_gpu_is_that_gpu():
    assert choose([offer(WithGpus)], "gpu:1") == "gpus on gpu:1"


def test_an_fpga_is_found_by_its_address():
    assert choose([offer(WithFpga)], "fpga:0000:65:00.0") == "fpga on fpga:0000:65:00.0"


def test_an_emulator_is_no_fpga_but_can_be_asked_for():
    assert choose([offer(WithFpga)], "fpga-emulator") == "fpga on fpga-emulator:0"
    assert choose([offer(WithFpga)], "fpga") == "fpga on fpga:0000:65:00.0"


def test_a_required_gpu_that_is_missing_is_refused_naming_every_missing_piece():
    with pytest.raises(ScoringError) as refusal:
        choose([offer(CpuOnly)], "gpu")
    assert refusal.value.kind is Kind.DEVICE_MISSING
    assert refusal.value.message == 'model "m" needs gpu: plain: no GPU build, no driver'


def test_a_gpu_number_that_is_not_there_is_refused_naming_those_that_are():
    with pytest.raises(ScoringError, match=r"gpu:7.*this host has gpu:0, gpu:1") as refusal:
        choose([offer(WithGpus)], "gpu:7")
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_a_required_gpu_is_missing_when_its_runtime_is_not_installed():
    with pytest.raises(ScoringError, match="pip install it") as refusal:
        choose([offer(WithGpus, unavailable="pip install it")], "gpu")
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_an_fpga_that_nothing_drives_is_missing():
    with pytest.raises(ScoringError, match="it drives no fpga") as refusal:
        choose([offer(CpuOnly)], "fpga")
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_a_format_that_nothing_takes_is_refused_naming_the_formats_and_the_broken_back_ends():
    broken = Offer("odd", frozenset(), frozenset(), "", unavailable="its probe failed")
    with pytest.raises(ScoringError, match=r'"tflite".*onnx.*odd: its probe failed') as refusal:
        choose([offer(CpuOnly), broken], "auto", ModelArtifact("m", 1, "tflite", Path("m")))
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_required_device_that_only_a_plug_in_may_have_is_refused_naming_the_plug_in():
    installed = Offer("npu", frozenset(), frozenset(), "", unavailable="installed, not allowed: say --backends npu")
    with pytest.raises(ScoringError, match="it drives no fpga; npu: installed, not allowed: say --backends npu"):
        choose([offer(CpuOnly), installed], "fpga")


def test_a_runtime_that_is_not_installed_is_named_with_its_remedy():
    missing = probes.onnx_runtime(find=lambda name: None)
    with pytest.raises(ScoringError, match=r"onnx_runtime: python package 'onnxruntime' is not installed: pip install"):
        choose([missing], "auto")


def test_a_model_may_name_the_back_end_that_runs_it():
    pool = BackendPool([offer(WithGpus, preference=1), offer(CpuOnly)])
    backend, devices = pool.choose(ONNX, parse_device_request("auto"), "plain")
    assert (backend.name, devices[0].id) == ("plain", "cpu:0")


def test_a_back_end_that_is_named_and_not_there_is_refused_naming_those_that_are():
    with pytest.raises(ScoringError, match='runtime "fast" does not run onnx models; there is: gpus, plain') as refusal:
        BackendPool([offer(WithGpus), offer(CpuOnly)]).choose(ONNX, parse_device_request("auto"), "fast")
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_broken_back_end_does_not_hide_one_that_works():
    assert choose([offer(Broken, name="broken"), offer(CpuOnly)], "cpu") == "plain on cpu:0"


def test_several_devices_are_all_taken_in_the_order_of_the_request():
    assert choose([offer(WithGpus)], "gpu:1,0") == "gpus on gpu:1, gpu:0"


def test_one_missing_of_several_devices_is_named_and_the_others_are_not_silently_taken():
    with pytest.raises(ScoringError, match=r"there is no gpu:2 and no gpu:7; this host has gpu:0, gpu:1") as refusal:
        choose([offer(WithGpus)], "gpu:0,2,7")
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_the_projects_probes_name_classes_that_exist_and_import_nothing_heavy():
    heavy = {"onnxruntime", "tensorflow", "openvino"} - set(sys.modules)
    offers = [getattr(probes, name)() for name in ("onnx_runtime", "tf_session", "vitis_fpga", "openvino", "synthetic")]
    assert [o.name for o in offers] == ["onnx_runtime", "tf_session", "vitis_fpga", "openvino", "synthetic"]
    assert not heavy & set(sys.modules)
    assert load_backend(offers[-1]).name == "synthetic"

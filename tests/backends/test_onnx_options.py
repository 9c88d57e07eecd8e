"""`[backend]` of an ONNX model: what is refused, and what the library is told."""

import pytest
from played_cuda import SECOND_GPU, THE_GPU

from accelserve.backends.base import Device
from accelserve.backends.onnx_runtime.options import (
    CPU,
    CUDA,
    TENSORRT,
    fit_device,
    provider_list,
    read_options,
    tell_ignored,
)
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError

THE_CPU = Device("cpu:0", DeviceKind.CPU, "CPU")


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({"turbo": True}, 'no setting "turbo"; it has spinning, '),
        ({"tf32": "no"}, "\"tf32\" wants true or false, got 'no'"),
        ({"cuda_graphs": 1}, '"cuda_graphs" wants true or false, got 1'),
        ({"gpu_memory_limit_bytes": True}, "a whole number above 0, got True"),
        ({"gpu_memory_limit_bytes": -1}, "a whole number above 0, got -1"),
        ({"arena_shrink_above_rows": 1.5}, "a whole number above 0, got 1.5"),
        ({"precision_tolerance": "small"}, "a number above 0, got 'small'"),
        ({"precision": "int8"}, '"precision" wants "fp32" or "fp16", got \'int8\''),
        ({"arena_extend_strategy": ["x"]}, '"power_of_two" or "same_as_requested"'),
        ({"cudnn_conv_algo_search": "best"}, '"heuristic" or "exhaustive" or "default"'),
        ({"provider": "rocm"}, '"cuda" or "tensorrt"'),
        ({"cuda_graphs": True, "provider": "tensorrt"}, 'cuda_graphs is for provider = "cuda"'),
        ({"cuda_graphs": True, "io_binding": False}, "cuda_graphs needs bound memory"),
        ({"cuda_graphs": True, "arena_shrink_above_rows": 8}, "a captured graph keeps using the arena's memory"),
    ],
)
def test_a_setting_that_is_unknown_mistyped_or_contradicted_is_refused_with_what_is_wanted(extra, words):
    with pytest.raises(ScoringError) as refusal:
        read_options("m:3", extra)
    assert refusal.value.kind is Kind.INVALID
    assert refusal.value.message.startswith("m:3: ")
    assert words in refusal.value.message


def settings(device: Device = THE_GPU, **extra):
    ((name, found),) = provider_list(read_options("m", extra), device, None)
    assert name == CUDA
    return found


def test_the_defaults_of_cuda():
    assert settings() == {
        "device_id": "0",
        "use_tf32": "1",
        "arena_extend_strategy": "kNextPowerOfTwo",
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def test_every_setting_reaches_the_provider_in_its_own_words():
    found = settings(
        SECOND_GPU,
        tf32=False,
        arena_extend_strategy="same_as_requested",
        cudnn_conv_algo_search="exhaustive",
        gpu_memory_limit_bytes=2**30,
        cuda_graphs=True,
        prefer_nhwc=True,
    )
    assert found == {
        "device_id": "1",
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        "gpu_mem_limit": str(2**30),
        "enable_cuda_graph": "1",
        "prefer_nhwc": "1",
    }


def test_tensorrt_is_told_its_device_precision_and_cache(tmp_path):
    options = read_options("m", {"provider": "tensorrt", "precision": "fp16"})
    (first, found), (second, cuda) = provider_list(options, SECOND_GPU, tmp_path)
    assert (first, second) == (TENSORRT, CUDA)
    assert found["device_id"] == cuda["device_id"] == "1"
    assert found["trt_fp16_enable"] == "1"
    assert found["trt_engine_cache_path"] == found["trt_timing_cache_path"] == str(tmp_path)


def test_on_the_cpu_the_gpus_settings_do_nothing_and_the_log_says_so(caplog):
    extra = {"tf32": False, "provider": "tensorrt", "spinning": True}
    assert provider_list(read_options("m", extra), THE_CPU, None) == [(CPU, {})]
    with caplog.at_level("INFO", logger="accelserve.backends"):
        tell_ignored("m:3", extra, THE_CPU)
        tell_ignored("m:3", extra, THE_GPU)
    assert [record.getMessage() for record in caplog.records] == [
        "m:3 runs on cpu:0, where provider, tf32 does nothing"
    ]


def test_strict_placement_is_for_a_gpu():
    strict = read_options("m", {"strict_placement": True})
    assert fit_device(strict, THE_GPU).strict_placement
    assert not fit_device(strict, THE_CPU).strict_placement


def test_memory_is_bound_on_a_gpu_and_on_a_cpu_where_it_is_asked_for():
    assert read_options("m", {}).binds(THE_GPU)
    assert not read_options("m", {}).binds(THE_CPU)
    assert read_options("m", {"io_binding": True}).binds(THE_CPU)
    assert not read_options("m", {"io_binding": False}).binds(THE_GPU)

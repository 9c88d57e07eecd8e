"""Where the nodes run, and when that is worth a warning."""

import logging
from pathlib import Path

import pytest

from accelserve.backends.base import Device, ModelArtifact, Placement
from accelserve.devices import DeviceKind
from accelserve.models.placement import placement_text, too_many_on_cpu, warn_of_placement

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Session:
    def __init__(self, kind, **nodes):
        self.device = Device(f"{kind.value}:0", kind, "a device")
        self.placement = Placement({{"cuda": CUDA, "cpu": CPU}[where]: count for where, count in nodes.items()})


@pytest.mark.parametrize(
    ("cuda", "cpu", "many"),
    [(100, 0, False), (100, 10, False), (100, 11, True), (9, 1, False), (8, 1, True), (0, 1, True)],
)
def test_more_than_ten_nodes_or_a_tenth_of_them_on_the_cpu_are_too_many(cuda, cpu, many):
    assert too_many_on_cpu(Placement({CUDA: cuda, CPU: cpu})) is many


def test_an_unknown_placement_is_no_reason_to_warn():
    assert not too_many_on_cpu(Placement())
    assert placement_text(Placement()) == ""


def test_a_gpu_session_that_leaves_much_to_the_cpu_is_told_with_the_numbers(caplog):
    warn_of_placement(ModelArtifact("m", 3, "onnx", Path("m.onnx")), Session(DeviceKind.GPU, cuda=20, cpu=12))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith("m:3 on gpu:0 leaves 12 of 32 nodes to the CPU")
    assert f"20 on {CUDA}, 12 on {CPU}" in record.message


def test_a_cpu_session_is_where_it_should_be(caplog):
    warn_of_placement(ModelArtifact("m", 3, "onnx", Path("m.onnx")), Session(DeviceKind.CPU, cpu=500))
    assert caplog.records == []

"""What `--device` can say."""

import pytest

from accelserve.devices import DeviceKind, DeviceRequest, parse_device_request
from accelserve.errors import Kind, ScoringError


@pytest.mark.parametrize(
    ("text", "kind", "ids"),
    [
        ("auto", None, ()),
        ("cpu", DeviceKind.CPU, ()),
        ("gpu", DeviceKind.GPU, ()),
        ("gpu:0", DeviceKind.GPU, ("0",)),
        ("gpu:0,1", DeviceKind.GPU, ("0", "1")),
        ("fpga:0000:65:00.0", DeviceKind.FPGA, ("0000:65:00.0",)),
        ("fpga-emulator", DeviceKind.FPGA_EMULATOR, ()),
    ],
)
def test_a_device_request_is_read_and_written(text, kind, ids):
    request = parse_device_request(text)
    assert request == DeviceRequest(kind, ids)
    assert str(request) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cuda",
        "GPU",
        "gpu:",
        "gpu:x",
        "gpu:0,",
        "gpu:0,0",
        "gpu:-1",
        "gpu:01",
        "cpu:0",
        "auto:1",
        "fpga:",
        f"gpu:{10**4}",
    ],
)
def test_a_device_request_that_means_nothing_is_refused_with_the_ones_that_do(text):
    with pytest.raises(ScoringError, match="fpga-emulator") as refusal:
        parse_device_request(text)
    assert refusal.value.kind is Kind.INVALID
    assert refusal.value.message.endswith(f"got {text!r}")

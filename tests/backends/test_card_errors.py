"""Failures of the libraries that drive cards: whose fault, and in one readable line; and what is known of a device."""

import pytest

from accelserve.backends.accel_onnx.card_states import CardStates
from accelserve.backends.base import Device, DeviceState
from accelserve.backends.openvino import errors as openvino
from accelserve.backends.vitis_fpga import errors as vitis
from accelserve.devices import DeviceKind
from accelserve.errors import Kind

CARD = Device("fpga:0000:65:00.0", DeviceKind.FPGA, "card", exclusive=True)
OTHER = Device("fpga:0000:b3:00.0", DeviceKind.FPGA, "card", exclusive=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("[XRT] ERROR: Failed to wait: ERT_CMD_STATE_TIMEOUT", Kind.DEVICE_LOST),
        ("xclExecWait: No such device", Kind.DEVICE_LOST),
        ("DPU timeout", Kind.DEVICE_LOST),
        ("std::bad_alloc", Kind.DEVICE_MEMORY),
        ("the input tensor cannot be reshaped", Kind.INVALID),
        ("vaip: pass failed", Kind.INTERNAL),
    ],
)
def test_what_xrt_and_the_provider_say(text, kind):
    assert vitis.kind_of(RuntimeError(text)) is kind


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("DMA timeout on channel 0", Kind.DEVICE_LOST),
        ("mmd: failed to read from the device", Kind.DEVICE_LOST),
        ("not enough DDR memory for the weights", Kind.DEVICE_MEMORY),
        ("the model input (shape=[?,16]) and the tensor (shape=(3.17)) are incompatible", Kind.INVALID),
        ("Infer Request is busy", Kind.INTERNAL),
    ],
)
def test_what_openvino_says(text, kind):
    assert openvino.kind_of(RuntimeError(text)) is kind


def test_the_librarys_source_paths_and_line_breaks_are_left_out():
    error = RuntimeError(
        "Exception from src/inference/src/cpp/core.cpp:84:\n"
        "Check 'util::file_exists(path)' failed at src/frontend.cpp:117:\n"
        'FrontEnd API failed with GeneralFailure:\nonnx: Could not open the file: "/tmp/nope.onnx"\n\n'
    )
    assert openvino.one_line(error) == 'onnx: Could not open the file: "/tmp/nope.onnx"'


def test_an_error_without_words_is_told_by_its_class_and_a_long_one_is_cut():
    assert openvino.one_line(MemoryError()) == "MemoryError"
    assert len(openvino.one_line(RuntimeError("x" * 1000))) == 400


def test_a_device_is_ready_when_it_is_there_and_absent_when_not():
    states = CardStates()
    assert states.health(CARD, there=True).state is DeviceState.READY
    assert states.health(CARD, there=False).state is DeviceState.ABSENT


def test_a_device_is_being_programmed_while_the_block_runs_and_its_neighbour_is_not():
    states = CardStates()
    with states.programming(CARD, "the bits are on their way"):
        assert states.health(CARD, there=True).state is DeviceState.PROGRAMMING
        assert states.health(CARD, there=True).reason == "the bits are on their way"
        assert states.health(OTHER, there=True).state is DeviceState.READY
    assert states.health(CARD, there=True).state is DeviceState.READY


def test_a_lost_device_is_lost_until_it_is_programmed_anew():
    states = CardStates()
    states.note_lost(CARD, "pulled")
    assert states.health(CARD, there=True).state is DeviceState.LOST
    with pytest.raises(RuntimeError, match="no luck"), states.programming(CARD, "again"):
        raise RuntimeError("no luck")
    assert states.health(CARD, there=True).reason == "pulled"
    with states.programming(CARD, "again"):
        pass
    assert states.health(CARD, there=True).state is DeviceState.READY

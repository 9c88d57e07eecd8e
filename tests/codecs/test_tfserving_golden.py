"""Requests recorded from the real client (tests/golden/record_tfserving.py), read by ours."""

import json
from pathlib import Path

import numpy as np
import pytest

from accelserve.codecs.tfserving_proto import decode_metadata_call, decode_predict, decode_status_call
from accelserve.messages import ModelRef
from accelserve.tensors import BY_NAME, DTYPES, dtype_of

GOLDEN = Path(__file__).parents[1] / "golden" / "tfserving"
CASES = json.loads((GOLDEN / "manifest.json").read_text())["cases"]


def recorded(call):
    return [name for name, told in CASES.items() if told["call"] == call]


def ref(told):
    return ModelRef(**told) if told else ModelRef()


def tensor(told):
    """The array that the manifest describes."""
    dtype, values = BY_NAME[told["dtype"]], told["values"]
    if dtype.is_string:
        flat = np.array([bytes.fromhex(value) for value in values], object)
    elif "complex" in dtype.name:
        flat = np.array([complex(*value) for value in values], dtype.numpy)
    else:
        flat = np.array(values, np.uint64 if dtype.name == "uint64" else None).astype(dtype.numpy)
    return flat.reshape(told["shape"])


@pytest.mark.parametrize("name", recorded("predict"))
def test_a_recorded_predict_request_holds(name):
    told = CASES[name]

    call = decode_predict((GOLDEN / f"{name}.bin").read_bytes())

    assert call.model == ref(told["model"])
    assert call.has_model_spec == (told["model"] is not None)
    assert call.signature == told["signature"]
    assert call.output_filter == tuple(told["output_filter"])
    assert call.inputs.keys() == told["inputs"].keys()
    for alias, got in call.inputs.items():
        assert dtype_of(got).name == told["inputs"][alias]["dtype"]
        np.testing.assert_array_equal(got, tensor(told["inputs"][alias]), strict=True)


def test_the_recorded_requests_hold_every_dtype_of_the_table_both_ways():
    for name in ("every_dtype", "every_dtype_in_its_typed_field"):
        assert CASES[name]["inputs"].keys() == {dtype.name for dtype in DTYPES}


def test_a_recorded_metadata_request_holds():
    [name] = recorded("metadata")

    call = decode_metadata_call((GOLDEN / f"{name}.bin").read_bytes())

    assert (call.model, list(call.fields)) == (ref(CASES[name]["model"]), CASES[name]["fields"])


def test_a_recorded_status_request_holds():
    [name] = recorded("status")

    assert decode_status_call((GOLDEN / f"{name}.bin").read_bytes()) == ref(CASES[name]["model"])


def test_every_recording_is_told_of():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == CASES.keys()

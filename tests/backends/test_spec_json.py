"""A signature's tensors in the JSON of converted models."""

import json

import pytest

from accelserve.backends.spec_json import spec_from_json, spec_to_json
from accelserve.tensors import BY_NAME, TensorSpec


@pytest.mark.parametrize("shape", [None, (), (-1, 224, 224, 3)])
def test_a_spec_comes_back_as_it_was(shape):
    spec = TensorSpec("image", BY_NAME["uint8"], shape, "Placeholder:0")
    told = json.loads(json.dumps(spec_to_json(spec, "in:0")))
    assert told["value"] == "in:0"
    assert spec_from_json("image", told) == spec

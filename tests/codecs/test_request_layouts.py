"""Requests that look like ones before mean what protobuf says that they mean."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from accelserve.codecs.request_layouts import RequestLayouts
from accelserve.codecs.tfserving_proto import _decode_predict, decode_predict, encode_predict_request
from accelserve.codecs.wire_format import field, varint
from accelserve.errors import ScoringError
from accelserve.messages import ModelRef
from accelserve.tensors import DTYPES, Tensor
from accelserve.wire.tfserving_pb2 import PredictRequest


def outcome(decode: Callable[[bytes], object], data: bytes) -> object:
    try:
        call = decode(data)
    except ScoringError as error:
        return error.kind, error.message
    return call.model, call.signature, call.output_filter, call.has_model_spec, described(call.inputs)


def described(inputs: dict[str, Tensor]) -> object:
    return {
        name: (t.dtype, t.shape, t.tolist() if t.dtype == np.object_ else t.tobytes()) for name, t in inputs.items()
    }


def by_protobuf(data: bytes) -> object:
    return outcome(_decode_predict, data)


def random_tensor(chance: random.Random) -> bytes:
    """A TensorProto in wire form: plain, or with its fields repeated, in odd order, unpacked, unknown or missing."""
    dtype = chance.choice([*DTYPES, *DTYPES[:2] * 20])
    shape = [chance.choice([0, 1, 1, 2, 3]) for _ in range(chance.choice([0, 1, 1, 2, 2, 3]))]
    count = int(np.prod(shape)) + chance.choice([0] * 12 + [1, -1])
    elements = bytes(chance.randrange(256) for _ in range(max(count, 0) * dtype.numpy.itemsize))
    if dtype.name == "bool" and chance.random() < 0.9:
        elements = bytes(byte & 1 for byte in elements)
    dims = b"".join(field(2, b"\x08" + varint(size)) for size in shape)
    bulk = chance.choice([field(4, elements)] * 6 + [field(5, elements), field(6, elements), field(7, elements)])
    if chance.random() < 0.05:
        bulk = b"".join(b"\x2d" + elements[at : at + 4] for at in range(0, len(elements) // 4 * 4, 4))
    fields = [b"\x08" + varint(dtype.tf), field(2, dims), bulk]
    while chance.random() < 0.15:
        fields.append(
            chance.choice([*fields, b"\x18\x01", field(5, b"\0" * 4), field(4, b""), field(8, b"s"), field(30, b"x")])
        )
    if chance.random() < 0.1:
        chance.shuffle(fields)
    if chance.random() < 0.05:
        fields.pop(chance.randrange(len(fields)))
    return b"".join(fields)


def random_request(chance: random.Random) -> bytes:
    parts = []
    if chance.random() < 0.8:
        parts.append(field(1, field(1, b"model") + chance.choice([b"", field(3, b"sig"), field(2, b"\x08\x07")])))
    for _ in range(chance.choice([0, 1, 1, 1, 1, 2, 3])):
        entry = [field(1, chance.choice([b"x", b"x", b"y", b"z", b"\xff"])), field(2, random_tensor(chance))]
        if chance.random() < 0.05:
            entry.append(chance.choice([*entry, field(3, b"?"), b"\x08\x01"]))
        if chance.random() < 0.05:
            chance.shuffle(entry)
        if chance.random() < 0.03:
            entry.pop()
        parts.append(field(2, b"".join(entry)))
    if chance.random() < 0.2:
        parts.append(field(3, chance.choice([b"y", b"\xff"])))
    if chance.random() < 0.05:
        parts.append(chance.choice([*parts, field(9, b"unknown"), b"\x20\x05", b"\x0d\0\0\0\0", b"\x0b\x0c"]))
    if chance.random() < 0.1:
        chance.shuffle(parts)
    return b"".join(parts)


def damaged(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 8])):
        if changed:
            changed[chance.randrange(len(changed))] = chance.choice(
                [0, 1, 2, 8, 0x12, 0x22, 0x2A, 0xFF, chance.randrange(256)]
            )
    if chance.random() < 0.2 and changed:
        del changed[chance.randrange(len(changed))]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(6))
def test_any_request_means_what_protobuf_says(seed: int):
    chance = random.Random(seed)
    for _ in range(700):
        data = random_request(chance)
        for variant in (data, data, *(damaged(chance, data) for _ in range(5)), data):
            assert outcome(decode_predict, variant) == by_protobuf(variant), variant


@pytest.mark.parametrize("dtype", [d for d in DTYPES if not d.is_string and d.name != "bool"], ids=str)
@pytest.mark.parametrize("inputs", [1, 3])
def test_a_request_like_one_before_is_taken_apart_without_protobuf(dtype, inputs: int):
    layouts = RequestLayouts[str]()
    chance = np.random.default_rng(3)

    def request() -> tuple[dict[str, Tensor], bytes]:
        elements = {
            f"x{i}": chance.integers(0, 256, (i + 2) * 3 * dtype.numpy.itemsize, np.uint8) for i in range(inputs)
        }
        tensors = {name: each.view(dtype.numpy).reshape(-1, 3) for name, each in elements.items()}
        return tensors, encode_predict_request(ModelRef("m", 1), "s", tensors, ["y"])

    tensors, data = request()
    assert layouts.find(data) is None
    layouts.learn(data, tensors, "rest")
    for _ in range(3):
        tensors, data = request()
        found = layouts.find(data)
        assert found is not None
        assert found[1] == "rest"
        assert described(found[0]) == described(tensors)
        assert all(tensor.flags.aligned and tensor.flags.c_contiguous for tensor in found[0].values())


def test_packed_floats_lie_in_the_request_as_its_content_does():
    for name, values in (("float_val", [0.5, -1.0]), ("double_val", [0.1, 2.0])):
        request = PredictRequest()
        proto = request.inputs["x"]
        proto.dtype = 1 if name == "float_val" else 2
        proto.tensor_shape.dim.add().size = 2
        getattr(proto, name).extend(values)
        first = decode_predict(request.SerializeToString())
        getattr(proto, name)[:] = [7.0, 8.0]
        second = decode_predict(request.SerializeToString())
        assert first.inputs["x"].tolist() == pytest.approx(values)
        assert second.inputs["x"].tolist() == [7.0, 8.0]


def test_what_is_remembered_of_a_request_does_not_pass_for_another():
    def request(name: str, model: str, values: list[float]) -> bytes:
        return encode_predict_request(ModelRef(model), "", {name: np.array(values, np.float32)})

    for name, model in (("x", "a"), ("y", "a"), ("x", "b"), ("z", "c"), ("w", "d"), ("v", "e"), ("x", "a")):
        for values in ([1.0, 2.0], [3.0, 4.0]):
            call = decode_predict(request(name, model, values))
            assert (call.model.name, {key: tensor.tolist() for key, tensor in call.inputs.items()}) == (
                model,
                {name: values},
            )


def test_what_is_remembered_is_bounded():
    layouts = RequestLayouts[int]()
    for n in range(2000):
        for model in ("a", "b", "c", "d", "e", "f"):
            tensors = {"x": np.zeros(n, np.int8)}
            layouts.learn(encode_predict_request(ModelRef(model), "", tensors), tensors, n)
    kept = list(layouts._by_length.values())
    assert len(kept) <= 256
    assert max(map(len, kept)) <= 4


def test_bools_are_looked_at_each_time():
    tensors = {"x": np.array([True, False])}
    data = encode_predict_request(ModelRef("m"), "", tensors)
    assert decode_predict(data).inputs["x"].tolist() == [True, False]
    with pytest.raises(ScoringError, match="neither 0 nor 1"):
        decode_predict(data.replace(b"\x01\x00", b"\x02\x00"))

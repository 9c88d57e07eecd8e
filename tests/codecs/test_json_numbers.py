"""The quick way for arrays of numbers and the general way: the same tensors, and the same refusals."""

import random
from typing import Any

import numpy as np
import orjson
import pytest
from predict_bodies import parse_predict

from accelserve.codecs.json_numbers import MIN_BYTES, NumberArray, parse_large
from accelserve.codecs.json_text import parse_json
from accelserve.codecs.scoring_json import parse_scoring
from accelserve.codecs.tfserving_json import bind_predict, read_document, read_predict
from accelserve.errors import ScoringError
from accelserve.tensors import DTYPES, Signature, Tensor, TensorSpec

NUMBERS = ["0", "1", "7", "255", "-1", "0.5", "-2.5", "1e3", "1E-3", "3.14159274101257324"]
INTEGERS = ["0", "1", "7", "100", "127", "3"]
ODD_NUMBERS = [
    "-0",
    "-0.0",
    "1e39",
    "-1e39",
    "1e400",
    "1e-400",
    "4.9e-324",
    "65519.999",
    "65520",
    "3.4028235677973366e38",
    "3.4028235677973365e38",
    "1e999999999999",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "256",
    "-128",
    "-129",
    "-9223372036854775808",
    "-9223372036854775809",
    "16777217",
    "1.00000005960464477539062500001",
    "2147483648",
    "4294967296",
    "-2147483649",
    "9999999999999999999999999999999999999999",
    "0.00000000000000000000000000000000000000000000070064923216240853",
    "2.0",
]
NO_NUMBERS = [
    "true",
    "false",
    "null",
    '"a"',
    '"1"',
    '"["',
    '"]"',
    '""',
    "{}",
    '{"b64":"AA=="}',
    "[]",
    "[1]",
    "[[1]]",
    "[1,2]",
    "NaN",
    "Infinity",
    "-Infinity",
    "Inf",
    "-NaN",
    "01",
    "1.",
    ".5",
    "+1",
    "-",
    "1e",
    "0x1",
    "1_000",
    '"\\ud800"',
    '"\\u005b"',
    "\x00",
    "é",
    "//",
    "/**/",
    "[,]",
    ",",
]
SPACES = ["", "", " ", "\n", "\t \r\n"]
KEYS = ["instances", "instances", "inputs", "data", "x", "instanc\\u0065s", ""]


def signature(dtype: str, *more: str) -> Signature:
    known = {d.name: d for d in DTYPES}
    return Signature("", {name: TensorSpec(name, known[dtype], None, name) for name in ("x", *more)}, {})


SIGNATURES = [signature(d.name) for d in DTYPES] + [signature("float32")] * len(DTYPES) + [signature("float32", "z")]


def outcome(body: bytes, known: Signature, parse: Any, read: Any) -> object:
    try:
        parsed = read(parse(body), body)
        tensors = bind_predict(parsed, known)
    except ScoringError as error:
        return error.kind, error.message
    return parsed.signature, parsed.row_format, {name: described(tensor) for name, tensor in tensors.items()}


def described(tensor: Tensor) -> object:
    values = tensor.tolist() if tensor.dtype == np.object_ else tensor.tobytes()
    return tensor.dtype, tensor.shape, values, tensor.flags.writeable, tensor.flags.aligned


def both_ways(body: bytes, known: Signature) -> None:
    assert outcome(body, known, parse_large, read_document) == outcome(body, known, parse_json, read_document), body


def nested(chance: random.Random, shape: list[int], leaf: Any) -> str:
    if not shape:
        return leaf()
    items = [nested(chance, shape[1:], leaf) for _ in range(shape[0])]
    space = chance.choice(SPACES)
    return f"[{space}{f'{space},'.join(items)}{space}]"


def document(chance: random.Random, oddity: float) -> str:
    """JSON, or nearly: the larger the oddity, the less plain."""
    numbers = chance.choice([NUMBERS, INTEGERS])

    def leaf() -> str:
        if chance.random() < oddity:
            return chance.choice(chance.choice([ODD_NUMBERS, NO_NUMBERS]))
        return chance.choice(numbers)

    array = nested(chance, [chance.choice([1, 1, 2, 3]) for _ in range(chance.randint(0, 4))], leaf)
    if chance.random() < oddity:
        at = chance.randrange(len(array))
        array = array[:at] + chance.choice(["", "[", "]", ",", " ", "1", '"', "}"]) + array[at + chance.randint(0, 1) :]
    space, key = chance.choice(SPACES), chance.choice(KEYS) if chance.random() < oddity else chance.choice(KEYS[:4])
    if chance.random() < 0.1:
        return space + array + space
    fields = [f'"{key}"{space}:{space}{array}']
    if chance.random() < 0.2:
        name = chance.choice(['"s"', '"s["', '"\\u0073"', '""', '"\\ud800"', "5", "null", '"é"'])
        fields.insert(chance.randint(0, 1), f'"signature_name":{space}{name}')
    if chance.random() < oddity:
        more = [
            '"more":1',
            '"output_filter":["y"]',
            '"instances":[1]',
            '"inputs":[1]',
            '"signature_name":"t"',
            '"a":[[1]]',
        ]
        fields.insert(chance.randint(0, 1), chance.choice(more))  # fmt: skip
    tail = chance.choice(["x", "}", "\x00", "[", "\ufeff"]) if chance.random() < oddity else space
    return f"{space}{{{space}{f',{space}'.join(fields)}{space}}}{tail}"


@pytest.mark.parametrize("seed", range(8))
def test_any_body_is_read_as_the_general_way_reads_it(seed: int):
    chance = random.Random(seed)
    for _ in range(1500):
        body = document(chance, chance.choice([0, 0.05, 0.3])).encode()
        if chance.random() < 0.02:
            body = body.replace(b"s", b"\xff", 1)
        both_ways(body, chance.choice(SIGNATURES))


@pytest.mark.parametrize("known", SIGNATURES[: len(DTYPES)], ids=lambda known: known.inputs["x"].dtype.name)
@pytest.mark.parametrize("text", ODD_NUMBERS)
def test_any_number_is_read_as_the_general_way_reads_it(text: str, known: Signature):
    for beside in ("1", "0.5"):
        both_ways(f'{{"instances": [[{beside}, {text}]]}}'.encode(), known)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_any_float_is_rounded_as_the_general_way_rounds_it(dtype: str):
    chance = np.random.default_rng(5)
    numbers = chance.integers(0, 2**64, 5000, np.uint64).view(np.float64)
    single = chance.integers(0, 2**32, 5000, np.uint32).view(np.float32)
    near = single[np.isfinite(single)].astype(np.float64) * (1 + 2.0**-25)  # nearly between two of them
    for values in (numbers, near, chance.random(5000), chance.standard_normal(5000) * 70_000):
        text = orjson.dumps({"inputs": values[np.isfinite(values)].tolist()})
        both_ways(text, signature(dtype))


SHAPES = [
    [1],
    [5],
    [1, 300],
    [3, 1],
    [2, 300],
    [40, 3],
    [1, 1, 1, 1],
    [2, 3, 4, 5],
    [1, 2, 1, 2],
    [300, 1],
    [2, 2, 300],
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    "form", ["{}", '{{"instances":{}}}', '{{"inputs": {}}}', '{{"signature_name": "s","data":{}}}']
)
def test_a_plain_body_goes_the_quick_way(shape: list[int], form: str):
    values = np.arange(np.prod(shape)).reshape(shape).tolist()
    for text in (orjson.dumps(values).decode(), orjson.dumps(values, option=orjson.OPT_INDENT_2).decode()):
        read = parse_large(form.format(text).encode())
        array = read if isinstance(read, NumberArray) else next(v for v in read.values() if type(v) is not str)
        assert isinstance(array, NumberArray)
        assert array.lists() == values
        tensor = array.tensor(DTYPES[0])
        assert tensor is not None
        assert tensor.tolist() == values


@pytest.mark.parametrize(
    "body",
    [
        b'{"instances":[["a",1]]}',
        b'{"instances":[[1],[]]}',
        b'{"instances":[[],[]]}',
        b'{"instances":[[1,[2]],[3,4]]}',
        b'{"instances":[[1,2],5,[3,4]]}',
        b'{"instances":[1,true]}',
        b'{"instances":[[1]],"instances":[[2]]}',
        b'{"instances":[[1]],"inputs":[[2]]}',
        b'{"instances":[1],"signature_name":7}',
        b'{"instances":[1,NaN]}',
        b'{"instances":[1]} more',
        b'\xef\xbb\xbf{"instances":[1]}',
        b'{"instances":[{"x":1}]}',
    ],
)
def test_what_is_not_plain_is_read_the_general_way(body: bytes):
    for known in (signature("float32"), signature("int32"), signature("string"), signature("float32", "z")):
        both_ways(body, known)


def test_large_bodies_are_read_the_same_way_by_all_who_read_json():
    values = np.random.default_rng(1).random((3, 500)).astype(np.float32)
    known = signature("float32")
    bare = orjson.dumps(values.astype(np.float64).tolist())
    assert len(bare) > MIN_BYTES
    instances, data = b'{"instances":' + bare + b"}", b'{"data":' + bare + b"}"
    _, read, _, row_format = read_predict(instances, lambda _: known)
    assert row_format
    for tensors in (read, bind_predict(parse_predict(instances), known), bind_predict(parse_scoring(data), known)):
        np.testing.assert_array_equal(tensors["x"], values)
    np.testing.assert_array_equal(bind_predict(parse_scoring(bare), known)["x"], values)
    for parse, body in ((parse_predict, bare), (parse_predict, data), (parse_scoring, b'{"datum":' + bare + b"}")):
        with pytest.raises(ScoringError):
            bind_predict(parse(body), known)

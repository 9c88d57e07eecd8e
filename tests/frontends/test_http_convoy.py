"""Requests that came together are told what each would have been told alone."""

import asyncio
import json
import re

import numpy as np
import pytest

from accelserve.codecs.json_numbers import MIN_BYTES
from accelserve.codecs.tfserving_json import encode_predict, encode_together, read_predict, read_together
from accelserve.errors import ScoringError
from accelserve.frontends import http_tfserving
from accelserve.tensors import BY_NAME, Signature, TensorSpec
from http_cases import Case
from http_service import FAST, Answer, Connection, FrozenClock, serving

ROWS = b'{"instances": [[1, 2]]}'
USUAL = [b'{"instances": [[%d, %d.5]]}' % (n, n) for n in range(9)]
ODD = [
    b'{"instances": [[1, 2], [3, 4], [5, 6]]}',
    b'{"instances": [[1, 2, 3]]}',
    b'{"instances": [[1], [2, 3]]}',
    b'{"instances": [1, 2]}',
    b'{"instances": [["a", 2]]}',
    b'{"instances": [[true, 2]]}',
    b'{"instances": [[null, 2]]}',
    b'{"instances": []}',
    b'{"instances": [[NaN, 1e999]]}',
    b'{"instances": [[1e39, 2]]}',
    b'{"inputs": [[1, 2]]}',
    b'{"instances": [{"x": [1, 2]}]}',
    b'{"instances": [[1, 2]], "signature_name": "other"}',
    b'{"instances": [[1, 2]], "instances": [[3, 4]]}',
    b"\xef\xbb\xbf" + ROWS,
    ROWS + b" trailing",
    b"{",
    b"null",
    b"\xff",
]
_WIDE = ", ".join(map(repr, np.linspace(-1, 1, 600).tolist())).encode()
WIDE = [b'{"instances": [[%b, %d.5]]}' % (_WIDE, n) for n in range(4)]
ODD_WIDE = [
    b'{"instances":[[%b, 7]]}' % _WIDE,
    b'{ "instances" : [ [ %b , 7 ] ] } ' % _WIDE,
    b'{"instances": [[%b, 7], [%b, 8]]}' % (_WIDE, _WIDE),
    b'{"instances": [[%b, 7], [%b]]}' % (_WIDE, _WIDE),
    b'{"instances": [[%b, 7], 8]}' % _WIDE,
    b'{"instances": [[%b], 7]}' % _WIDE,
    b'{"instances": [[%b], []]}' % _WIDE,
    b'{"instances": [[%b, [7]]]}' % _WIDE,
    b'{"instances": [[%b, []]]}' % _WIDE,
    b'{"instances": [[[%b, 7]]]}' % _WIDE,
    b'{"instances": [%b, 7]}' % _WIDE,
    b'{"instances": [[%b]]}' % _WIDE,
    b'{"instances": [[%b, 7, 8]]}' % _WIDE,
    b'{"instances": [[%b, {"a": 1}]]}' % _WIDE,
    b'{"instances": [[%b, {}]]}' % _WIDE,
    b'{"instances": [[%b, "7"]]}' % _WIDE,
    b'{"instances": [["7", %b]]}' % _WIDE,
    b'{"instances": [[%b, true]]}' % _WIDE,
    b'{"instances": [[%b, null]]}' % _WIDE,
    b'{"instances": [[%b, NaN]]}' % _WIDE,
    b'{"instances": [[%b, 1e39]]}' % _WIDE,
    b'{"instances": [[%b, 1e999]]}' % _WIDE,
    b'{"instances": [[%b, 07]]}' % _WIDE,
    b'{"instances": [[%b, 7]], "signature_name": "other"}' % _WIDE,
    b'{"signature_name": "serving_default", "instances": [[%b, 7]]}' % _WIDE,
    b'{"instances": [[%b, 7]], "x": "]]"}' % _WIDE,
    b'{"instances": [[%b, 7]], "instances": 8}' % _WIDE,
    b'{"inputs": [[%b, 7]]}' % _WIDE,
    b'{"instances": [[%b, 7]]} trailing' % _WIDE,
    b'{"instances": [[%b, 7]]' % _WIDE,
    b'{"instances": [[%b, 7' % _WIDE,
    b"\xef\xbb\xbf" + WIDE[0],
    b'{"instances": [[' + b" " * 6000 + b"]]}",
    b'{"instances": [[' + b"7," * 6000 + b"]]}",
]
# Texts that are no documents and make some when they are joined, around one that is: who joins them gives a wrong row.
JOINED = [b'{"instances": [[9, 9]', b'{"instances": [[1, 2]]}', b'], "instances": [[7, 7]]}, {"instances": [[8, 8]]}']


def request(body: bytes, path: str = "/v1/models/double:predict", *headers: tuple[str, str]) -> bytes:
    return Case("", "POST", path, body, headers=headers).bytes()


def run(tmp_path, scenario) -> None:
    async def main() -> None:
        async with serving(tmp_path, FAST) as service:
            await scenario(service)

    asyncio.run(main())


async def at_once(service, requests: list[bytes]) -> list[Answer]:
    """Each on a connection of its own, whose head is known by then, all in one turn of the loop."""
    connections = [service.connect() for _ in requests]
    for connection, sent in zip(connections, requests, strict=True):
        head, _, _ = sent.partition(b"\r\n\r\n")
        usual = re.sub(rb"(?i)(content-length: )\d+", rb"\g<1>%d" % len(ROWS), head)
        await connection.send(usual + b"\r\n\r\n" + ROWS)
    before = [len(connection.wire.written) for connection in connections]
    for connection, sent in zip(connections, requests, strict=True):
        connection.wire.send(sent)
    for connection in connections:
        await connection.settle()
    answers = [Answer.parse(connection.wire.written[at:]) for connection, at in zip(connections, before, strict=True)]
    for connection in connections:
        await connection.lose()
    return answers


async def on_their_way(service, count: int) -> list[Connection]:
    """As many with a second request each, in a convoy that has left and has no answer yet."""
    connections = [service.connect() for _ in range(count)]
    for connection in connections:
        await connection.send(request(ROWS))
    for connection in connections:
        connection.wire.send(request(ROWS))
    await asyncio.sleep(0)
    return connections


async def alone(service, sent: bytes) -> Answer:
    connection = service.connect()
    answer = Answer.parse(await connection.send(sent))
    await connection.lose()
    return answer


def told(answer: Answer) -> tuple[object, ...]:
    """Without where it rode."""
    headers = {name: value for name, value in answer.headers.items() if name != "x-accelserve-timing"}
    return answer.status, headers, answer.body


def rode(answer: Answer) -> tuple[int, int]:
    """(rows in the batch, position)."""
    found = re.search(r"batch=(\d+), position=(\d+)", answer.headers["x-accelserve-timing"])
    assert found
    return int(found[1]), int(found[2])


def books(service) -> dict[str, float]:
    page = service.metrics.render()[0].decode()
    lines = [line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("accelserve_request")]
    return {name: float(value) for name, value in lines}


def counted(service, outcome: str = "") -> int:
    wanted = f'outcome="{outcome}' if outcome else "outcome="
    ends = [value for name, value in books(service).items() if "requests_total" in name and wanted in name]
    return int(sum(ends))


def test_requests_of_one_turn_ride_in_one_batch_and_each_gets_its_own_answer(tmp_path):
    async def scenario(service) -> None:
        answers = await at_once(service, [request(body) for body in USUAL])
        assert [json.loads(answer.body)["predictions"] for answer in answers] == [
            [[2 * n, 2 * n + 1]] for n in range(len(USUAL))
        ]
        assert [rode(answer) for answer in answers] == [(len(USUAL), n) for n in range(len(USUAL))]
        assert counted(service, "answered") == counted(service) == 2 * len(USUAL)

    run(tmp_path, scenario)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_request_and_its_neighbours_are_told_what_they_are_told_alone(tmp_path, odd):
    async def scenario(service) -> None:
        bodies = [*USUAL[:3], odd, *USUAL[3:5]]
        for answer, body in zip(await at_once(service, list(map(request, bodies))), bodies, strict=True):
            assert told(answer) == told(await alone(service, request(body))), body

    run(tmp_path, scenario)


def test_large_bodies_of_one_turn_ride_in_one_batch_and_odd_ones_are_told_what_they_are_told_alone(tmp_path):
    def large(body: bytes) -> bytes:
        return body.replace(b" ", b" " * MIN_BYTES)

    async def scenario(service) -> None:
        answers = await at_once(service, [request(large(body)) for body in USUAL])
        assert [rode(answer) for answer in answers] == [(len(USUAL), n) for n in range(len(USUAL))]
        assert [json.loads(answer.body)["predictions"][0][1] for answer in answers] == [2 * n + 1 for n in range(9)]
        for odd in ODD[:10]:
            bodies = [large(body) for body in (*USUAL[:2], odd, USUAL[2])]
            for answer, body in zip(await at_once(service, list(map(request, bodies))), bodies, strict=True):
                assert told(answer) == told(await alone(service, request(body))), odd

    run(tmp_path, scenario)


def test_bodies_that_make_documents_only_when_joined_are_refused_each_for_itself(tmp_path):
    async def scenario(service) -> None:
        answers = await at_once(service, list(map(request, JOINED)))
        assert [answer.status for answer in answers] == [400, 200, 400]
        assert json.loads(answers[1].body) == {"predictions": [[2, 4]]}

    run(tmp_path, scenario)


def test_of_a_batch_that_fails_only_the_guilty_request_fails(tmp_path):
    async def scenario(service) -> None:
        path = "/v1/models/picky:predict"
        guilty = b'{"instances": [[666, 0]]}'
        answers = await at_once(service, [request(body, path) for body in (USUAL[1], guilty, USUAL[2])])
        singly = [await alone(service, request(body, path)) for body in (USUAL[1], guilty, USUAL[2])]
        assert list(map(told, answers)) == list(map(told, singly))
        assert [answer.status for answer in answers][::2] == [200, 200]
        assert answers[1].status != 200

    run(tmp_path, scenario)


def test_heads_that_ask_for_something_else_are_not_mixed(tmp_path):
    async def scenario(service) -> None:
        urgent = ("x-accelserve-priority", "high")
        wrong = ("x-accelserve-priority", "urgent")
        asked = [(), (urgent,), (), (wrong,), (urgent,)]
        sent = [request(ROWS, "/v1/models/double:predict", *headers) for headers in asked]
        answers = await at_once(service, sent)
        assert [answer.status for answer in answers] == [200, 200, 200, 400, 200]

    run(tmp_path, scenario)


def test_ids_of_clients_are_answered_each_with_its_own(tmp_path):
    async def scenario(service) -> None:
        sent = [request(ROWS, "/v1/models/double:predict", ("x-request-id", name)) for name in "aab"]
        answers = await at_once(service, sent)
        assert [answer.headers["x-request-id"] for answer in answers] == ["a", "a", "b"]

    run(tmp_path, scenario)


def test_who_leaves_before_the_answer_is_counted_as_cancelled_and_the_others_are_answered(tmp_path):
    async def scenario(service) -> None:
        connections = await on_their_way(service, 3)
        connections[1].protocol.connection_lost(None)
        for connection in connections:
            await connection.settle()
        assert [connection.wire.written.count(b"200 OK") for connection in connections] == [2, 1, 2]
        assert (counted(service, "answered"), counted(service, "cancelled"), counted(service)) == (5, 1, 6)

    run(tmp_path, scenario)


def test_when_all_leave_nothing_is_left_behind(tmp_path):
    async def scenario(service) -> None:
        connections = await on_their_way(service, 3)
        for connection in connections:
            connection.protocol.connection_lost(None)
        for connection in connections:
            await connection.settle()
        assert (counted(service, "answered"), counted(service, "cancelled"), counted(service)) == (3, 3, 6)
        assert not [v for name, v in books(service).items() if "in_flight" in name and v]

    run(tmp_path, scenario)


def test_who_goes_on_alone_has_no_more_time_for_that(tmp_path, monkeypatch):
    now_ms = [1]

    def takes_long(*_):
        now_ms[0] += 1000

    async def scenario(service) -> None:
        sent = [request(ROWS, "/v1/models/double:predict", ("x-accelserve-timeout-ms", "500"))] * 3
        monkeypatch.setattr(http_tfserving, "read_together", takes_long)
        answers = await at_once(service, sent)
        assert [answer.status for answer in answers] == [504] * 3
        assert now_ms == [1001]

    monkeypatch.setattr(FrozenClock, "now_ns", lambda _: now_ms[0] * 1_000_000)
    run(tmp_path, scenario)


def test_requests_for_a_heavy_model_go_singly(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(http_tfserving, "read_together", lambda bodies, _: read.append(len(bodies)))

    async def scenario(service) -> None:
        for light_ns, together in ((-1, []), (0, [len(USUAL)])):
            monkeypatch.setattr(http_tfserving, "_LIGHT_ROW_NS", light_ns)
            answers = await at_once(service, [request(body) for body in USUAL])
            assert [answer.status for answer in answers] == [200] * len(USUAL)
            assert read == together

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("limit", "bytes_"), [("LARGE_BYTES", len(ROWS) - 1), ("_MOST_BYTES_TOGETHER", 3 * len(ROWS) - 1)]
)
def test_large_bodies_are_not_read_together_on_the_loop(tmp_path, monkeypatch, limit, bytes_):
    read = []
    monkeypatch.setattr(http_tfserving, "read_together", lambda bodies, _: read.append(len(bodies)))

    async def scenario(service) -> None:
        for count in (2, 3):
            assert [answer.status for answer in await at_once(service, [request(ROWS)] * count)] == [200] * count
        assert read == [2, 3]
        monkeypatch.setattr(http_tfserving, limit, bytes_)
        assert [answer.status for answer in await at_once(service, [request(ROWS)] * 3)] == [200] * 3
        assert read == [2, 3]

    run(tmp_path, scenario)


def test_more_than_a_convoy_holds_are_all_answered(tmp_path):
    async def scenario(service) -> None:
        answers = await at_once(service, [request(USUAL[n % 9]) for n in range(150)])
        assert [json.loads(answer.body)["predictions"][0][0] for answer in answers] == [2 * (n % 9) for n in range(150)]

    run(tmp_path, scenario)


# -- the codec -----------------------------------------------------------------------------------------------------


def signature_of(dtype: str) -> Signature:
    x, y = (TensorSpec(name, BY_NAME[dtype], (-1, 2), name) for name in "xy")
    return Signature("serving_default", {"x": x}, {"y": y})


SIGNATURE, HALVES = signature_of("float32"), signature_of("float16")


def require_as_singly(bodies: list[bytes], signature: Signature) -> None:
    together = read_together(bodies, signature)
    if together is None:
        return
    inputs, counts = together
    singly = [read_predict(body, lambda name: signature)[1]["x"] for body in bodies]
    assert counts == [len(tensor) for tensor in singly]
    assert inputs["x"].dtype == signature.inputs["x"].dtype.numpy
    assert inputs["x"].shape == (sum(counts), *singly[0].shape[1:])
    assert inputs["x"].tobytes() == np.concatenate(singly).tobytes()


@pytest.mark.parametrize("odd", [*ODD, USUAL[3]], ids=repr)
def test_what_is_read_together_is_what_is_read_singly(odd):
    require_as_singly([USUAL[1], odd, USUAL[2]], SIGNATURE)


@pytest.mark.parametrize("at", [0, 1, 3])
@pytest.mark.parametrize("odd", ODD_WIDE, ids=[f"{body[:24]!r}..{body[-24:]!r}" for body in ODD_WIDE])
def test_large_bodies_are_read_together_as_they_are_read_singly(odd, at):
    for signature in (SIGNATURE, HALVES):
        require_as_singly([*WIDE[:at], odd, *WIDE[at:]], signature)
        require_as_singly([odd, odd], signature)


@pytest.mark.parametrize("dtype", ["float64", "uint8", "int32", "int64", "uint64"])
@pytest.mark.parametrize("last", ["7", "-7", "256", "2147483648", "18446744073709551615", "7.0", "true"])
def test_large_bodies_of_other_types_are_read_together_as_they_are_read_singly(dtype, last):
    signature = signature_of(dtype)
    usual = b'{"instances": [[%b, 7]]}' % (b"1, " * 2000)
    for bodies in ([usual, usual.replace(b"7]", last.encode() + b"]")], [usual, usual]):
        try:
            require_as_singly(bodies, signature)
        except ScoringError as error:
            pytest.fail(f"read together, refused singly: {error}")


@pytest.mark.parametrize("bodies", [WIDE, ODD_WIDE[:1] * 2, ODD_WIDE[1:2] * 2, WIDE + ODD_WIDE[:3]])
def test_plain_large_bodies_are_read_together(bodies):
    assert read_together(bodies, SIGNATURE) is not None


def test_usual_bodies_are_read_together():
    assert read_together(USUAL, SIGNATURE) is not None


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "float16"])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 4), (3, 0), (3, 2, 2)])
@pytest.mark.parametrize("special", [0, np.nan, np.inf])
def test_what_is_written_together_is_what_is_written_singly(dtype, shape, special):
    tensor = (np.arange(np.prod(shape)).reshape(shape) * 1.7).astype(dtype)
    if tensor.size and np.issubdtype(tensor.dtype, np.floating):
        tensor.flat[-1] = special
    for counts in ([1, 1, 1], [2, 1]):
        ends = np.cumsum(counts)
        singly = [encode_predict({"y": tensor[e - c : e]}, True) for e, c in zip(ends, counts, strict=True)]
        assert encode_together({"y": tensor}, counts) == singly


def test_complex_outputs_are_refused_as_ever():
    with pytest.raises(ScoringError):
        encode_together({"y": np.ones((2, 1), np.complex64)}, [1, 1])

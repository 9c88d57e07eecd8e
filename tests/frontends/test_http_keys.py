"""Keys over HTTP: both lanes, pipelines, bodies that are not read, heads that are remembered, keys that change."""

import asyncio
import re

import pytest

from accelserve.errors import Kind
from accelserve.frontends.guard import OPEN_HTTP, Guard
from accelserve.keys import Keyring, Keys, new_key
from http_service import FAST, LANES, Answer, serving

PRIMARY, SECONDARY = "primary-primary-primary", "secondary-secondary-secondary"
BODY = b'{"instances": [[1.0, 2.0]]}'
PATH = "/v1/models/double:predict"


def request(path=PATH, body=BODY, *lines, method="POST", key=PRIMARY):
    head = [f"{method} {path} HTTP/1.1", "host: x", *lines]
    if key is not None:
        head.append(f"authorization: Bearer {key}")
    if body is not None:
        head.append(f"content-length: {len(body)}")
    return "\r\n".join((*head, "", "")).encode() + (body or b"")


def run(folder, lane, talk, open_paths=OPEN_HTTP):
    ring = Keyring(Keys(PRIMARY, SECONDARY))

    async def main():
        async with serving(folder, lane, guard=Guard(ring, open_paths)) as service:
            return await talk(service, ring)

    return asyncio.run(main())


def answers(data: bytes) -> list[Answer]:
    found = []
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        found.append(Answer.parse(data[: len(head) + 4 + length]))
        data = rest[length:]
    return found


def without_id(data: bytes) -> bytes:
    return re.sub(rb"x-request-id: \S+", b"x-request-id: -", data)


@pytest.mark.parametrize("lane", LANES)
@pytest.mark.parametrize("key", [PRIMARY, SECONDARY])
def test_each_of_two_keys_scores_again_and_again(tmp_path, lane, key):
    async def talk(service, ring):
        connection = service.connect()
        return [Answer.parse(await connection.send(request(key=key))).status for _ in range(3)]

    assert run(tmp_path, lane, talk) == [200, 200, 200]


TURNED_AWAY = (
    request(key=None),
    request(key=""),
    request(key="wrong-wrong-wrong-wrong"),
    request("/score", b"\xff\xd8", key=None),
    request("/v1/models", None, method="GET", key=None),
    request("/docs", None, method="GET", key=None),
    request("/swagger.json", None, method="GET", key=None),
    request("/no/such/path", None, method="GET", key=None),
    request("/v1/models", None, method="HEAD", key=None),
    request(PATH, BODY, "expect: 100-continue", key=None),
    request(PATH, b"x" * 100_000, key=None),
    request(PATH, BODY, f"authorization: Bearer {PRIMARY}"),  # two keys
    request(PATH, None, "transfer-encoding: chunked", key=None) + b"0\r\n\r\n",
    request(PATH, BODY, key=None).replace(b"HTTP/1.1", b"HTTP/1.0"),
)


def test_both_lanes_turn_requests_away_in_the_same_bytes(tmp_path):
    async def talk(service, ring):
        told = []
        for asked in TURNED_AWAY:
            connection = service.connect()
            written = await connection.send(asked)
            told.append((without_id(written), connection.heard().closed or connection.heard().ended))
        return told, service.told, service.metrics.books.protocol("http").received

    fast, slow = (run(tmp_path / lane, lane, talk) for lane in LANES)
    assert fast == slow
    told, refused, received = fast
    for written, _ in told:
        answer = Answer.parse(written)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-accelserve-reason"] == "unauthenticated"
    assert refused == [Kind.UNAUTHENTICATED] * len(TURNED_AWAY)
    assert received == len(TURNED_AWAY)


@pytest.mark.parametrize("lane", LANES)
def test_a_connection_outlives_a_small_request_that_is_turned_away(tmp_path, lane):
    async def talk(service, ring):
        connection = service.connect()
        first = Answer.parse(await connection.send(request(key=None)))
        assert "connection" not in first.headers
        again = [Answer.parse(await connection.send(request(key=None))).status for _ in range(2)]
        return first.status, again, Answer.parse(await connection.send(request())).status

    assert run(tmp_path, lane, talk) == (401, [401, 401], 200)


@pytest.mark.parametrize("lane", LANES)
def test_a_large_body_is_refused_at_its_head_and_none_of_it_kept(tmp_path, lane):
    async def talk(service, ring):
        connection = service.connect()
        head = request(PATH, b"", key=None).replace(b"content-length: 0", b"content-length: 900000")
        written = await connection.send(head)
        assert Answer.parse(written).status == 401
        assert Answer.parse(written).headers["connection"] == "close"
        before = service.policy.bodies._left_bytes
        assert await connection.send(*[b"x" * 65536] * 10) == b""  # thrown away
        return service.policy.bodies._left_bytes == before, len(connection.protocol.pipeline), connection.heard().ended

    assert run(tmp_path, lane, talk) == (True, 0, True)


@pytest.mark.parametrize("lane", LANES)
def test_pipelined_requests_are_answered_in_order_whoever_is_turned_away(tmp_path, lane):
    keys = [PRIMARY, None, SECONDARY, "wrong-wrong-wrong-wrong", PRIMARY]

    async def talk(service, ring):
        connection = service.connect()
        data = b"".join([request(key=key) for key in keys])
        return [answer.status for answer in answers(await connection.send(data))]

    assert run(tmp_path, lane, talk) == [200, 401, 200, 401, 200]


@pytest.mark.parametrize("lane", LANES)
def test_a_head_in_pieces_is_judged_when_it_is_whole(tmp_path, lane):
    async def talk(service, ring):
        connection = service.connect()
        data = request(key=None)
        assert await connection.send(*[data[at : at + 1] for at in range(len(data) - len(BODY) - 1)]) == b""
        return Answer.parse(await connection.send(data[-len(BODY) - 1 :])).status

    assert run(tmp_path, lane, talk) == 401


def test_a_head_that_was_remembered_is_judged_anew_when_the_keys_change(tmp_path):
    async def talk(service, ring):
        connection = service.connect()
        told = [Answer.parse(await connection.send(request())).status for _ in range(3)]
        assert service.policy.lane.find(request())[0] is not None
        ring.replace(Keys(new := new_key(), SECONDARY))
        told += [Answer.parse(await connection.send(request())).status for _ in range(2)]
        told += [Answer.parse(await connection.send(request(key=new))).status for _ in range(2)]
        ring.replace(Keys(PRIMARY, SECONDARY))
        told += [Answer.parse(await connection.send(request(key=key))).status for key in (PRIMARY, new, PRIMARY)]
        return told

    assert run(tmp_path, FAST, talk) == [200, 200, 200, 401, 401, 200, 200, 200, 401, 200]


def test_a_large_body_whose_head_was_let_in_is_answered_though_its_key_goes_meanwhile(tmp_path):
    large = b'{"instances": [[1.0, 2.0]' + b" " * 80_000 + b"]}"

    async def talk(service, ring):
        connection = service.connect()
        assert Answer.parse(await connection.send(request(body=large))).status == 200
        data = request(body=large)
        assert await connection.send(data[:50_000]) == b""
        ring.replace(Keys(new_key(), new_key()))
        told = [Answer.parse(await connection.send(data[50_000:])).status]
        assert await connection.send(b"") == b""
        return [*told, Answer.parse(await connection.send(data[:50_000])).status]

    assert run(tmp_path, FAST, talk) == [200, 401]


def test_heads_with_wrong_keys_push_no_good_one_out_of_the_memory(tmp_path):
    async def talk(service, ring):
        connection = service.connect()
        await connection.send(request())
        for number in range(600):
            assert (await connection.send(request(key=f"wrong-wrong-wrong-{number}"))).startswith(b"HTTP/1.1 401")
        return service.policy.lane.find(request())[0] is not None, len(service.policy.lane._heads)

    assert run(tmp_path, FAST, talk) == (True, 1)


@pytest.mark.parametrize("lane", LANES)
def test_probes_are_answered_without_a_key_and_with_a_wrong_one(tmp_path, lane):
    async def talk(service, ring):
        connection = service.connect()
        told = []
        for path in ("/healthz", "/readyz", "/readyz/double", "/metrics", "/%68ealthz"):
            for key in (None, "wrong-wrong-wrong-wrong"):
                told.append(Answer.parse(await connection.send(request(path, None, method="GET", key=key))).status)
        return told

    assert run(tmp_path, lane, talk) == [200] * 10


@pytest.mark.parametrize("lane", LANES)
def test_everywhere_means_probes_too(tmp_path, lane):
    async def talk(service, ring):
        connection = service.connect()
        paths = ("/healthz", "/readyz", "/readyz/double", "/metrics")
        without = [Answer.parse(await connection.send(request(p, None, method="GET", key=None))).status for p in paths]
        return without, [Answer.parse(await connection.send(request(p, None, method="GET"))).status for p in paths]

    assert run(tmp_path, lane, talk, open_paths=None) == ([401] * 4, [200] * 4)


@pytest.mark.parametrize("lane", LANES)
def test_without_a_guard_the_header_is_ignored(tmp_path, lane):
    async def main():
        async with serving(tmp_path, lane) as service:
            connection = service.connect()
            sent = (None, "", "anything", "\xff")
            return [Answer.parse(await connection.send(request(key=key))).status for key in sent]

    assert asyncio.run(main()) == [200] * 4


@pytest.mark.parametrize("lane", LANES)
def test_a_client_that_leaves_in_the_body_of_a_request_without_a_key_is_counted_once(tmp_path, lane):
    async def talk(service, ring):
        connection = service.connect()
        await connection.send(request(key=None)[:-3])
        await connection.lose()
        return service.told

    assert run(tmp_path, lane, talk) == [Kind.CANCELLED]


def slips() -> dict[str, bytes]:
    """Requests that are made to be taken for others."""
    line, key = f"POST {PATH} HTTP/1.1".encode(), f"authorization: Bearer {PRIMARY}".encode()
    plain = request(key=None)
    other = {
        "GET /healthz/../v1/models",
        "GET /readyz/%2e%2e%2fv1/models",
        "GET //v1/models",
        "GET /v1/models?/healthz",
    }
    other |= {
        "GET /v1/models#/healthz",
        "GET /healthz;/v1/models",
        "GET /healthz%00",
        "OPTIONS *",
        "POST http://x/score",
    }
    made = {text: plain.replace(line, f"{text} HTTP/1.1".encode()) for text in other}
    chunks = b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(BODY), BODY, key)
    made["a key behind the body"] = request(PATH, None, "transfer-encoding: chunked", key=None) + chunks
    made["an upgrade"] = request(PATH, BODY, "connection: upgrade", "upgrade: websocket", key=None)
    made["a probe before it"] = request("/healthz", None, method="GET", key=None) + plain
    made["a name with a space"] = plain.replace(b"host: x", b"host: x\r\nauthorization : Bearer " + PRIMARY.encode())
    made["a folded line"] = plain.replace(b"host: x", b"host: x\r\nauthorization: Bearer\r\n " + PRIMARY.encode())
    return made


@pytest.mark.parametrize("lane", LANES)
def test_no_request_slips_past(tmp_path, lane):
    async def talk(service, ring):
        for name, asked in slips().items():
            written = await service.connect().send(asked)
            statuses = re.findall(rb"HTTP/1.1 (\d+)", written)
            assert statuses[-1] in (b"400", b"401"), name
            assert b"predictions" not in written, name
            assert b"model_version" not in written, name
        return True

    assert run(tmp_path, lane, talk)

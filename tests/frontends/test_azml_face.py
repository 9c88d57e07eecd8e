"""azmlinfsrv's routes, ids, headers and errors, in each lane, with the improvements and as the original."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from accelserve.entry_script.messages import ScriptRequest, ScriptResponse
from accelserve.frontends.guard import Guard
from accelserve.keys import Keyring, Keys
from http_cases import MOST_BODY_BYTES, Case
from http_replay import compare
from http_service import LANES, Answer
from http_streams import every_split, streams_of
from script_service import SWAGGER, ScriptService, azml_serving, echo

A = "01234567-89ab-4def-a123-456789abcdef"
LONG = "x" * 101


def with_face(
    script: Callable[[ScriptRequest], ScriptResponse | None] = echo, **settings: object
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """The test gets a face in each lane."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @pytest.mark.parametrize("lane", LANES)
        def run(lane: str) -> None:
            async def main() -> None:
                async with azml_serving(lane, script, **settings) as service:
                    await test(service)

            asyncio.run(main())

        run.__name__ = test.__name__
        return run

    return decorate


async def ask(service: ScriptService, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
    """x_y: header x-y."""
    sent = tuple([(name.replace("_", "-"), value) for name, value in headers.items()])
    return Answer.parse(await service.connect().send(Case("", method, target, body, sent).bytes()))


def message(answer: Answer) -> str:
    document = json.loads(answer.body)
    assert document.keys() == {"message"}
    return document["message"]


def ends(service: ScriptService) -> dict[tuple[str, str, str], int]:
    return dict(service.metrics.books.request("ML service", "", "http").ends)


# --- what no route is asked

REFUSED = {
    400: b"no HTTP at all\r\n\r\n",
    413: Case("", "POST", "/score", bytes(MOST_BODY_BYTES + 1)).bytes(),
    414: b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    431: b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n",
    501: b"POST /score HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("status", REFUSED)
@pytest.mark.parametrize("lane", LANES)
def test_what_the_connection_refuses_is_told_as_all_other_errors(lane, status, strict):
    async def main() -> None:
        async with azml_serving(lane, strict=strict) as service:
            answer = Answer.parse(await service.connect().send(REFUSED[status]))
            assert (answer.status, bool(message(answer))) == (status, True)
            assert answer.headers["x-ms-run-function-failed"] == "False"
            assert len(answer.headers["x-request-id"]) > 8

    asyncio.run(main())


@with_face(guard=Guard(Keyring(Keys("primary-primary-primary", "secondary-secondary-secondary")), None))
async def test_a_request_without_a_key_is_told_as_all_other_errors(service):
    answer = await ask(service, "POST", "/score", b"{}")
    assert (answer.status, "a key is wanted here" in message(answer)) == (401, True)
    assert answer.headers["www-authenticate"] == "Bearer"


@with_face()
async def test_a_body_that_stops_coming_is_told_as_all_other_errors(service):
    connection = service.connect()
    await connection.send(b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
    await connection.advance(60)
    answer = Answer.parse(connection.heard().written)
    assert (answer.status, "did not come in time" in message(answer)) == (408, True)


# --- routes


@with_face()
async def test_health_is_healthy_text(service):
    answer = await ask(service, "GET", "/")
    assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"Healthy", "text/html; charset=utf-8")
    assert answer.headers["x-ms-server-version"] == "face/1"
    assert answer.headers["x-request-id"] == A
    assert "x-ms-run-function-failed" not in answer.headers


@with_face()
async def test_health_off_while_the_server_stops_says_so(service):
    service.lifecycle.stopping = True
    answer = await ask(service, "GET", "/")
    assert (answer.status, message(answer)) == (503, "the server is stopping")


@with_face()
async def test_a_post_is_the_scripts(service):
    answer = await ask(service, "POST", "/score?a=1&a=2", b"the body")
    assert (answer.status, answer.body) == (200, b"POST ?a=1&a=2 the body")
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert answer.headers["x-ms-run-fn-exec-ms"] == "0.064"
    assert ends(service) == {("answered", "200", ""): 1}


@with_face()
async def test_a_get_is_the_scripts_and_head_is_answered_as_get(service):
    assert (await ask(service, "GET", "/score?a=1")).body == b"GET ?a=1 "
    answer = await ask(service, "HEAD", "/score?a=1")
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "9", b"")
    assert (await ask(service, "HEAD", "/")).headers["content-length"] == "7"


@with_face()
async def test_options_is_answered_by_the_server_on_every_path(service):
    for path, allow in (("/score", "GET, HEAD, POST, OPTIONS"), ("/", "GET, HEAD, OPTIONS")):
        answer = await ask(service, "OPTIONS", path)
        assert (answer.status, answer.headers["allow"], answer.body) == (200, allow, b"")


@with_face()
async def test_a_verb_that_a_path_does_not_take_is_405_with_allow_and_ids(service):
    cases = (("PUT", "/score"), ("DELETE", "/score"), ("PATCH", "/score"), ("POST", "/"), ("POST", "/swagger.json"))
    for method, path in cases:
        answer = await ask(service, method, path)
        assert (answer.status, message(answer)) == (405, "The method is not allowed for the requested URL.")
        assert "GET, HEAD" in answer.headers["allow"]
        assert answer.headers["x-request-id"] == A
        assert answer.headers["x-ms-run-function-failed"] == "False"
    assert ends(service) == {("failed", "405", "method"): 3}


@with_face()
async def test_another_path_is_404_in_the_originals_words(service):
    for path in ("/score/", "/nothing", "/api/v1/service/a/score"):
        answer = await ask(service, "POST", path, b"x")
        assert answer.status == 404
        assert message(answer).startswith("The requested URL was not found on the server. If you entered")


@with_face()
async def test_swagger_comes_in_each_version_and_under_each_name(service):
    for version, name in (("", "2"), ("?version=2.0", "2"), ("?version=3", "3"), ("?version=3.1", "3.1")):
        answer = await ask(service, "GET", f"/swagger.json{version}")
        assert (answer.status, answer.body) == (200, SWAGGER[name].encode())
        assert answer.headers["x-ms-run-function-failed"] == "False"
    answer = await ask(service, "GET", "/swagger.json?version=9")
    assert answer.status == 404
    assert message(answer) == "Swagger version [9] is not valid. Supported versions: [2, 3, 3.1]."


@with_face()
async def test_metrics_are_there(service):
    await ask(service, "POST", "/score", b"x")
    page = (await ask(service, "GET", "/metrics")).body.decode()
    assert 'accelserve_requests_total{code="200",model="ML service",outcome="answered"' in page


# --- ids


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        ({}, (A, A, None)),
        ({"x_request_id": "a"}, ("a", "a", None)),
        ({"x_ms_request_id": "b"}, (A, "b", "b")),
        ({"x_ms_client_request_id": "c"}, (A, "c", "c")),
        ({"x_ms_request_id": "b", "x_ms_client_request_id": "c"}, (A, "b", "c")),
        ({"x_request_id": "a", "x_ms_request_id": "b", "x_ms_client_request_id": "c"}, ("a", "b", "c")),
        ({"x_request_id": "a", "x_ms_client_request_id": "c"}, ("a", "c", "c")),
    ],
)
def test_ids_are_told_as_the_original_tells_them(sent, told):
    @with_face()
    async def in_both_lanes(service):
        for method, path in (("GET", "/"), ("POST", "/score")):
            headers = (await ask(service, method, path, b"x" if method == "POST" else b"", **sent)).headers
            names = ("x-request-id", "x-ms-request-id", "x-ms-client-request-id")
            assert tuple(headers.get(name) for name in names) == told

    for lane in LANES:
        in_both_lanes(lane)


@pytest.mark.parametrize("name", ["x_request_id", "x_ms_request_id", "x_ms_client_request_id"])
def test_an_id_of_more_than_100_characters_is_431(name):
    @with_face()
    async def in_both_lanes(service):
        for method, path in (("GET", "/"), ("POST", "/score")):
            answer = await ask(service, method, path, b"x" if method == "POST" else b"", **{name: LONG})
            assert answer.status == 431
            assert message(answer).endswith("must not exceed 100 characters")
            assert LONG not in answer.headers.values()
        assert ends(service) == {("refused", "431", "headers_too_large"): 1}

    for lane in LANES:
        in_both_lanes(lane)


@with_face()
async def test_a_trace_id_is_echoed(service):
    assert (await ask(service, "POST", "/score", b"x", traceid="t1")).headers["traceid"] == "t1"


# --- bodies


@with_face()
async def test_packed_bodies_are_unpacked_and_say_so(service):
    for coding, packed in (("gzip", gzip.compress(b"body")), ("deflate", zlib.compress(b"body"))):
        assert (await ask(service, "POST", "/score", packed, content_encoding=coding)).body == b"POST ? body"
    answer = await ask(service, "POST", "/score", b"body", content_encoding="br")
    assert (answer.status, "gzip, deflate" in message(answer)) == (415, True)


@with_face(lambda request: ScriptResponse(200, repr(request.headers).encode(), "text/plain"))
async def test_of_an_unpacked_body_the_script_sees_the_new_length(service):
    packed = gzip.compress(b"body")
    told = (await ask(service, "POST", "/score", packed, content_encoding="gzip", x_a="1")).body.decode()
    assert told == "(('host', 'test'), ('x-a', '1'), ('content-length', '4'))"


@with_face()
async def test_a_body_over_the_limit_is_413(service):
    answer = await ask(service, "POST", "/score", bytes(MOST_BODY_BYTES + 1))
    assert answer.status == 413


@with_face()
async def test_forms_and_empty_bodies_reach_the_script_whole(service):
    form = {"content_type": "application/x-www-form-urlencoded"}
    assert (await ask(service, "POST", "/score", b'{"a": 1}', **form)).body == b'POST ? {"a": 1}'
    assert (await ask(service, "POST", "/score", b"")).body == b"POST ? "


# --- what scripts answer


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(status):
    @with_face(lambda request: ScriptResponse(status, b"not sent", "text/plain"))
    async def in_both_lanes(service):
        connection = service.connect()
        answer = await connection.send(Case("", "POST", "/score", b"x").bytes())
        assert b"content-length" not in answer
        assert answer.endswith(b"\r\n\r\n")
        assert (await connection.send(Case("", "GET", "/").bytes())).startswith(b"HTTP/1.1 200")

    for lane in LANES:
        in_both_lanes(lane)


@pytest.mark.parametrize(
    "answered",
    [
        ScriptResponse(100, b"", "text/plain"),
        ScriptResponse(600, b"", "text/plain"),
        ScriptResponse(200, b"", "text/plain\r\nx-evil: 1"),
        ScriptResponse(200, b"", "text/plain", (("x-a", "1\r\nx-evil: 1"),)),
        ScriptResponse(200, b"", "text/plain", (("x-evil: 1\r\nx", "1"),)),
    ],
)
def test_what_http_cannot_say_is_500_and_the_scripts_fault(answered):
    @with_face(lambda request: answered)
    async def in_both_lanes(service):
        answer = await ask(service, "POST", "/score", b"x")
        assert answer.status == 500
        assert answer.headers["x-ms-run-function-failed"] == "True"
        assert "x-evil" not in answer.headers
        assert ends(service) == {("failed", "500", "script_answer"): 1}

    for lane in LANES:
        in_both_lanes(lane)


SAID = (
    *(("x-mine", "1"), ("X-Mine", "2"), ("Content-Length", "999"), ("Transfer-Encoding", "chunked")),
    *(("Connection", "close"), ("x-request-id", "forged"), ("X-MS-Run-Function-Failed", "forged")),
)


@with_face(lambda request: ScriptResponse(503, b"busy", "text/html", SAID, 1000, failed=True))
async def test_a_scripts_headers_are_sent_but_for_the_servers_own(service):
    connection = service.connect()
    answer = await connection.send(Case("", "POST", "/score", b"x").bytes())
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert lines.count(b"content-length: 4") == 1
    assert {b"x-mine: 1", b"x-mine: 2", b"x-ms-run-function-failed: True"} <= set(lines)
    assert not [line for line in lines if b"forged" in line or b"chunked" in line or b"close" in line]
    assert ends(service) == {("failed", "503", "script_failed"): 1}


@with_face()
async def test_a_worker_that_dies_costs_its_request_and_is_told_as_the_scripts_fault(service):
    answer = await ask(service, "POST", "/score", b"die")
    assert (answer.status, answer.headers["x-ms-run-function-failed"]) == (500, "True")
    assert answer.headers["x-accelserve-reason"] == "script_crashed"
    assert (await ask(service, "POST", "/score", b"x")).status == 200


@with_face(lambda request: None)
async def test_a_deadline_that_passes_in_the_run_is_504(service):
    connection = service.connect()
    await connection.send(Case("", "POST", "/score", b"x", (("x-accelserve-timeout-ms", "1"),)).bytes())
    await connection.answered()
    answer = Answer.parse(connection.wire.written)
    assert (answer.status, answer.headers["x-accelserve-reason"]) == (504, "deadline")


@with_face(lambda request: None)
async def test_a_client_that_leaves_is_counted_as_cancelled(service):
    connection = service.connect()
    await connection.send(Case("", "POST", "/score", b"x").bytes())
    await connection.lose()
    assert ends(service) == {("cancelled", "499", "disconnected"): 1}


# --- CORS


@with_face(origins=["https://a.example", "b.example"])
async def test_pages_of_named_origins_may_ask_and_preflights_succeed(service):
    for origin in ("https://a.example", "HTTPS://A.example", "http://b.example", "https://b.example"):
        answer = await ask(service, "POST", "/score", b"x", origin=origin)
        assert answer.headers["access-control-allow-origin"] == origin
        asked = {"access_control_request_method": "POST", "access_control_request_headers": "x-b, x-a"}
        answer = await ask(service, "OPTIONS", "/score", origin=origin, **asked)
        assert (answer.status, answer.headers["access-control-allow-methods"]) == (200, "GET, POST")
        assert answer.headers["access-control-allow-headers"] == "x-a, x-b"
    for headers in ({}, {"origin": "https://c.example"}, {"origin": "https://a.example.evil"}):
        answer = await ask(service, "POST", "/score", b"x", **headers)
        assert "access-control-allow-origin" not in answer.headers
        assert answer.headers["vary"] == "Origin"


# --- the original


@with_face(strict=True)
async def test_strictly_other_paths_and_verbs_get_no_ids_and_no_allow(service):
    for method, path, status in (("PUT", "/score", 405), ("GET", "/nothing", 404), ("GET", "/metrics", 404)):
        answer = await ask(service, method, path)
        assert answer.status == status
        assert answer.headers["x-ms-run-function-failed"] == "False"
        assert not {"x-request-id", "allow", "x-ms-server-version", "x-accelserve-reason"} & answer.headers.keys()


@with_face(strict=True)
async def test_strictly_the_script_sees_every_verb_and_the_packed_body(service):
    assert (await ask(service, "OPTIONS", "/score")).body == b"OPTIONS ? "
    assert (await ask(service, "HEAD", "/score")).headers["content-length"] == str(len(b"HEAD ? "))
    assert (await ask(service, "POST", "/score", b"packed", content_encoding="br")).body == b"POST ? packed"


@with_face(strict=True)
async def test_strictly_a_dead_worker_is_an_unexpected_error(service):
    answer = await ask(service, "POST", "/score", b"die")
    assert (answer.status, message(answer)) == (
        500,
        "An unexpected internal error occurred. Check the logs for more info.",
    )


@with_face(strict=True, origins=["https://b.example", "https://a.example"])
async def test_strictly_a_request_without_origin_is_told_the_first(service):
    answer = await ask(service, "GET", "/")
    assert (answer.headers["access-control-allow-origin"], answer.headers["vary"]) == ("https://a.example", "Origin")


# --- both lanes

CASES = (
    Case("post", "POST", "/score?x=1", b"body", (("x-ms-request-id", "b"),)),
    Case("large", "POST", "/score", bytes(90_000)),
    Case("empty", "POST", "/score", b""),
    Case("no content", "POST", "/score", b"204", status=204),
    Case("failed", "POST", "/score", b"503", status=503),
    Case("broken", "POST", "/score", b"600", status=500),
    Case("gzip", "POST", "/score", gzip.compress(b"body"), (("content-encoding", "gzip"),)),
    Case("long id", "POST", "/score", b"body", (("x-request-id", LONG),), status=431),
    Case("deadline", "POST", "/score", b"body", (("x-accelserve-timeout-ms", "no"),), status=400),
    Case("get", "GET", "/score?a=1"),
    Case("health", "GET", "/"),
    Case("put", "PUT", "/score", b"x", status=405),
    Case("unknown", "POST", "/nothing", b"x", status=404),
)


def by_body(request: ScriptRequest) -> ScriptResponse:
    if request.body.isdigit():
        status = int(request.body)
        return ScriptResponse(status, b"said", "text/html", (("x-b", "1"),), 1000, failed=status >= 500)
    return echo(request)


def through_both_lanes(streams, **settings) -> int:
    async def main() -> int:
        async with AsyncExitStack() as stack:
            services = [await stack.enter_async_context(azml_serving(lane, by_body, **settings)) for lane in LANES]
            return await compare(services, streams)

    return asyncio.run(main())


@pytest.mark.parametrize("strict", [False, True])
def test_both_lanes_answer_alike_in_some_of_the_ways_that_a_request_comes(strict):
    streams = [stream for at, case in enumerate(CASES) for stream in list(streams_of(case))[at % 4 :: 4]]
    assert through_both_lanes(streams, strict=strict, origins=["https://a.example"]) > len(CASES)


@pytest.mark.full
def test_both_lanes_answer_alike_in_whatever_way_a_request_comes():
    assert through_both_lanes(stream for case in CASES for stream in streams_of(case))


def test_both_lanes_answer_alike_wherever_a_request_is_split():
    assert through_both_lanes(stream for case in CASES[3:5] for stream in every_split(case))


def test_the_cases_are_no_empty_words():
    async def main() -> None:
        for lane in LANES:
            async with azml_serving(lane, by_body) as service:
                for case in CASES:
                    answer = await service.connect().send(case.bytes())
                    assert answer.startswith(b"HTTP/1.1 %d " % case.status), (lane, case.name, answer[:200])

    asyncio.run(main())

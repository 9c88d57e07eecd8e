"""The short lane and FastAPI answer every request with the same bytes: each case in each way that it may come.

Whole connections are compared, from the bytes that come to the bytes that leave and to how it ends; ids, clock and date
are injected. The books of both servers are compared at the end.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Awaitable, Callable

import pytest

from accelserve.frontends.http_messages import Head
from accelserve.frontends.http_raw import scores
from accelserve.models.manager import ModelManager
from accelserve.observability.metrics import Metrics
from http_cases import CASES, JPEG, MOST_BODY_BYTES, Case
from http_replay import through_both_lanes
from http_service import LANES, Answer, Service, serving
from http_streams import every_split, named, streams_of


@pytest.mark.full
@pytest.mark.parametrize("part", range(4))
def test_both_lanes_answer_every_case_alike_in_whatever_way_it_comes(tmp_path, part):
    through_both_lanes(tmp_path, (stream for case in CASES[part::4] for stream in streams_of(case)))


def test_both_lanes_answer_every_case_alike_in_some_of_the_ways(tmp_path):
    """Each way is that of every fifth case; the test above takes its time."""
    streams = (stream for at, case in enumerate(CASES) for stream in list(streams_of(case))[at % 5 :: 5])
    assert through_both_lanes(tmp_path, streams) > 5 * len(CASES)


def test_both_lanes_answer_alike_in_whatever_way_a_scoring_request_comes(tmp_path):
    cases = named("predict: a row", "score: JPEG, the best", "predict: no JSON", "predict: a deadline that passes")
    through_both_lanes(tmp_path, (stream for case in cases for stream in streams_of(case)))


def test_both_lanes_answer_alike_wherever_a_request_is_split(tmp_path):
    cases = named("predict: a row", "score: a service", "predict: no JSON", "GET on predict")
    through_both_lanes(tmp_path, (stream for case in cases for stream in every_split(case)))


def test_the_cases_are_no_empty_words(tmp_path):
    async def main() -> None:
        for lane in LANES:
            async with serving(tmp_path / lane, lane) as service:
                for case in CASES:
                    answer = await service.connect().send(case.bytes())
                    assert answer.startswith(b"HTTP/1.1 %d " % case.status), (lane, case.name)

    asyncio.run(main())
    assert {200, 400, 404, 405, 413, 415, 422, 500, 501, 504} <= {case.status for case in CASES}


# --- what is the same in both lanes, and more than being the same

DOUBLE = "/v1/models/double:predict"
ROWS = b'{"instances": [[1, 2]]}'


def in_each_lane(*cases: object) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """The test gets a service and, if there are any, each of the cases after the other."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        @pytest.mark.parametrize("lane", LANES)
        def run(tmp_path, lane: str) -> None:
            async def main() -> None:
                async with serving(tmp_path, lane) as service:
                    for case in [(case,) for case in cases] or [()]:
                        await test(service, *case)

            asyncio.run(main())

        run.__name__ = test.__name__
        return run

    return decorate


async def ask(service: Service, method: str, target: str, body: bytes = b"", **headers: str) -> Answer:
    """x_y: header x-y."""
    sent = tuple([(name.replace("_", "-"), value) for name, value in headers.items()])
    return Answer.parse(await service.connect().send(Case("", method, target, body, sent).bytes()))


@in_each_lane()
async def test_a_client_that_leaves_within_its_body_is_not_answered(service):
    connection = service.connect()
    await connection.send(Case("", "POST", "/score", JPEG).bytes()[:-1])
    await connection.lose()
    assert connection.wire.written == b""
    assert [kind.reason for kind in service.told] == ["cancelled"]


@in_each_lane("GET", "PUT", "OPTIONS", "TRACE", "DELETE", "PATCH", "PROPFIND")
async def test_every_other_verb_on_a_scoring_route_is_405_with_allow_and_counted(service, method):
    for path in ("/score", "/api/v1/service/digits/score"):
        answer = await ask(service, method, path)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert answer.error.startswith(f"{method} {path}: ")
    ends = (await ask(service, "GET", "/metrics")).body.decode()
    (line,) = (line for line in ends.splitlines() if 'reason="method"' in line)
    assert line.startswith("accelserve_requests_total{")
    assert float(line.split()[-1]) % 2 == 0


@in_each_lane("br", "zstd", "gzip, gzip", "gzip, br", "deflate, gzip")
async def test_an_unknown_content_encoding_is_415_and_named(service, coding):
    for path in ("/score?model=double", DOUBLE):
        answer = await ask(service, "POST", path, ROWS, content_encoding=coding)
        assert (answer.status, answer.error) == (
            415,
            f"Content-Encoding: want gzip, deflate or identity, got '{coding}'",
        )


@in_each_lane("gzip", "GZIP", "x-gzip", "identity, gzip", " gzip ,identity")
async def test_gzip_is_unpacked_under_each_of_its_names(service, coding):
    for packed in (gzip.compress(ROWS), gzip.compress(ROWS + b" " * 90_000), gzip.compress(ROWS, 0)):
        answer = await ask(service, "POST", DOUBLE, packed, content_encoding=coding)
        assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [[2.0, 4.0]]})
    too_much = gzip.compress(ROWS + b" " * MOST_BODY_BYTES)
    assert (await ask(service, "POST", DOUBLE, too_much, content_encoding=coding)).status == 413
    assert (await ask(service, "POST", DOUBLE, ROWS, content_encoding=coding)).status == 400


@in_each_lane("deflate", "Deflate, identity")
async def test_deflate_is_unpacked_with_and_without_its_frame(service, coding):
    bare = zlib.compressobj(wbits=-15)
    for packed in (zlib.compress(ROWS), zlib.compress(ROWS + b" " * 90_000), bare.compress(ROWS) + bare.flush()):
        answer = await ask(service, "POST", DOUBLE, packed, content_encoding=coding)
        assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [[2.0, 4.0]]})
    too_much = zlib.compress(ROWS + b" " * MOST_BODY_BYTES)
    assert (await ask(service, "POST", DOUBLE, too_much, content_encoding=coding)).status == 413
    for broken in (ROWS, zlib.compress(ROWS)[:-2], zlib.compress(ROWS) + b"x"):
        assert (await ask(service, "POST", DOUBLE, broken, content_encoding=coding)).status == 400


def test_the_unforeseen_outside_of_scoring_is_told_by_an_id_and_logged(tmp_path, monkeypatch, caplog):
    def broken(*arguments):
        raise RuntimeError("secret detail")

    async def main() -> None:
        async with serving(tmp_path, LANES[0]) as service:
            for question in ("statuses", "state"):
                monkeypatch.setattr(ModelManager, question, broken)
            monkeypatch.setattr(Metrics, "render", broken)
            for path in ("/v1/models", "/v1/models/double", "/readyz", "/readyz/double", "/metrics"):
                answer = await ask(service, "GET", path, x_request_id="mine")
                assert (answer.status, answer.headers["x-request-id"]) == (500, "mine")
                assert "secret" not in answer.error
                assert "mine" in answer.error
                answer = await ask(service, "GET", path)
                assert (answer.status, answer.headers["x-request-id"] in answer.error) == (500, True)

    asyncio.run(main())
    assert "RuntimeError: secret detail" in caplog.text


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/api/v1/service/m/score", True),
        ("/api/v1/service//score", False),
        ("/api/v1/service/m/n/score", False),
        ("/api/v1/service/m/score/", False),
        ("/api/v2/service/m/score", False),
    ],
)
def test_service_paths_have_exactly_one_name(path, found):
    assert scores(Head("POST", path, {}, {})) is found

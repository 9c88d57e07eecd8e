"""The short lane and FastAPI give the same bytes for every request; ids and clock are injected."""

import asyncio
import gzip
import json
from contextlib import asynccontextmanager

import pytest

from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.discovery import BackendPool
from accelserve.backends.probes import onnx_runtime, synthetic
from accelserve.builtin import digits_path, pictures
from accelserve.codecs.round_trip import check_round_trip
from accelserve.config import ModelConfig
from accelserve.frontends.http_app import build_app
from accelserve.frontends.http_exchange import HttpExchange
from accelserve.frontends.http_lane import HttpLane, is_service_path
from accelserve.frontends.http_ops import Operations
from accelserve.frontends.http_raw import RawScoring
from accelserve.frontends.http_tfserving import TfServingRest
from accelserve.frontends.offload import Offload
from accelserve.frontends.pictures import DecodeLimits, PictureDecoder
from accelserve.lifecycle import Lifecycle
from accelserve.models.loading import Loader
from accelserve.models.manager import ModelManager
from accelserve.models.resident import VersionLoader
from accelserve.models.watch import PathSource
from accelserve.observability.metrics import Metrics
from accelserve.scoring import Scorer

SYNTHETIC = 'behaviour = "double"\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
JPEG = pictures()[3][0].read_bytes()
MOST_BYTES = 100_000


class FrozenClock:
    """Time stands still, so that both lanes say the same of it."""

    def now_ns(self):
        return 1_000_000


@asynccontextmanager
async def both_lanes(tmp_path):
    """(lane, FastAPI application) over the same handlers."""
    path = tmp_path / "double.synthetic.toml"
    path.write_text(SYNTHETIC)
    configs = [ModelConfig("digits", digits_path()), ModelConfig("double", path)]
    pool = BackendPool([onnx_runtime(), synthetic()])
    loader = Loader(pool, FolderArtifactCache(tmp_path / "cache"), tmp_path / "leases", check_round_trip)
    clock = FrozenClock()
    metrics = Metrics(clock)
    decoder = PictureDecoder(1, DecodeLimits(10**7), clock)
    offload = Offload()
    sources, versions = [PathSource(configs)], VersionLoader(loader, clock, metrics)
    async with ModelManager(sources, versions, default="digits") as models:
        await models.changed(models.settled)
        scorer, exchange = Scorer(models, clock), HttpExchange(metrics, clock, lambda: "an-id")
        raw = RawScoring(scorer, decoder, exchange, offload, MOST_BYTES)
        rest = TfServingRest(scorer, models, decoder, exchange, offload, MOST_BYTES)
        app = build_app(raw, rest, Operations(models, metrics, Lifecycle()))
        yield HttpLane(app, raw.handle, rest.handle), app
    decoder.close()
    offload.close()


async def ask(app, method, target, body=b"", headers=()):
    """(status, sorted headers, body) of an ASGI application."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", b"test"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "state": {},
    }
    sent = []
    half = len(body) // 2
    pieces = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]

    async def receive():
        return pieces.pop(0) if pieces else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], sorted(sent[0]["headers"]), content


CASES = [
    ("POST", "/score", JPEG, ()),
    ("POST", "/score?top=2", JPEG, ()),
    ("POST", "/score?top=none", JPEG, ()),
    ("POST", "/score?model=double", b'{"instances": [[1, 2]]}', ()),
    ("POST", "/score?model=a%20b&model=nope", JPEG, ()),
    ("POST", "/api/v1/service/digits/score", JPEG, ((b"x-request-id", b"mine"), (b"x-ms-client-request-id", b"c"))),
    ("POST", "/api/v1/service/double/score", b"[[1, 2], [3, 4]]", ()),
    ("POST", "/score", b"", ()),
    ("POST", "/score", b"neither", ()),
    ("POST", "/score", JPEG[:2000], ()),
    ("POST", "/score", JPEG, ((b"x-accelserve-timeout-ms", b"soon"),)),
    ("POST", "/score", JPEG, ((b"x-accelserve-priority", b"urgent"),)),
    ("GET", "/score", b"", ()),
    ("HEAD", "/score", b"", ()),
    ("DELETE", "/api/v1/service/digits/score", b"", ()),
    ("OPTIONS", "/score", b"", ()),
    ("TRACE", "/score", b"", ()),
    ("PROPFIND", "/api/v1/service/digits/score", b"", ()),
    ("POST", "/score?model=double", b"\xef\xbb\xbf[[1, 2]]", ()),
    ("POST", "/score?model=double", b"[[1, 2]]", ((b"content-encoding", b"br"),)),
    ("POST", "/score?model=double", gzip.compress(b"[[1, 2]]"), ((b"content-encoding", b"X-GZIP, identity"),)),
    ("POST", "/v1/models/double:predict", b"{}", ((b"content-encoding", b"gzip, deflate"),)),
    ("TRACE", "/v1/models/double:predict", b"", ()),
    ("OPTIONS", "/v1/models/double:predict", b"", ()),
    ("BREW", "/V1/models", b"", ()),
    ("POST", "/v1/models/double:predict", b'{"instances": [[1.5, 2.5]]}', ()),
    ("POST", "/v1/models/double/versions/1:predict", b'{"inputs": {"x": [[1, 2]]}}', ()),
    ("POST", "/v1/models/double/versions/7:predict", b'{"inputs": {"x": [[1, 2]]}}', ()),
    ("POST", "/v1/models/double:predict", b"{", ()),
    ("POST", "/v1/models/nope:predict", b"{}", ()),
    ("POST", "/v1/models/double:classify", b"{}", ()),
    ("GET", "/v1/models", b"", ()),
    ("GET", "/v1/models/double", b"", ()),
    ("GET", "/v1/models/double/metadata", b"", ()),
    ("GET", "/v1/models/double:predict", b"", ()),
    ("PUT", "/v1/anything", b"", ()),
    ("GET", "/v1/models/nope", b"", ()),
    ("GET", "/healthz", b"", ()),
    ("GET", "/readyz", b"", ()),
    ("GET", "/readyz/double", b"", ()),
    ("GET", "/readyz/nope", b"", ()),
    ("GET", "/nowhere", b"", ()),
    ("POST", "/healthz", b"", ()),
    ("POST", "/api/v1/service//score", JPEG, ()),
]


def test_both_ways_answer_every_case_alike(tmp_path):
    async def main():
        async with both_lanes(tmp_path) as (lane, app):
            for case in CASES:
                answers = [await ask(way, *case) for way in (lane, app)]
                assert answers[0] == answers[1], case[:2]

    asyncio.run(main())


def test_the_cases_are_no_empty_words(tmp_path):
    async def main():
        async with both_lanes(tmp_path) as (lane, _):
            statuses = [(await ask(lane, *case))[0] for case in CASES]
            assert {200, 400, 404, 405, 415, 422, 501} <= set(statuses)
            status, headers, body = await ask(lane, "POST", "/score?top=1", JPEG)
            assert (status, b'"index":3' in body) == (200, True)
            assert (b"x-accelserve-device", b"cpu:0") in headers

    asyncio.run(main())


def test_a_client_that_leaves_within_its_body_is_not_answered(tmp_path):
    async def main():
        async with both_lanes(tmp_path) as (lane, _):

            async def receive():
                return {"type": "http.disconnect"}

            async def send(message):
                raise AssertionError("nobody is there")

            scope = {"type": "http", "path": "/score", "method": "POST", "headers": [], "query_string": b""}
            await lane(scope, receive, send)

    asyncio.run(main())


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "BREW"])
def test_every_other_verb_on_a_scoring_route_is_405_with_allow_and_counted(tmp_path, method):
    async def main():
        async with both_lanes(tmp_path) as (lane, app):
            for way in (lane, app):
                for path in ("/score", "/api/v1/service/digits/score"):
                    status, headers, body = await ask(way, method, path)
                    assert (status, dict(headers)[b"allow"]) == (405, b"POST")
                    assert json.loads(body)["error"].startswith(f"{method} {path}: ")
            _, _, page = await ask(lane, "GET", "/metrics")
            (line,) = (line for line in page.decode().splitlines() if 'reason="method"' in line)
            assert line.startswith("accelserve_requests_total{")
            assert line.endswith(" 4.0") or line.endswith(" 4")

    asyncio.run(main())


@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "gzip, gzip", "gzip, br"])
@pytest.mark.parametrize("path", ["/score?model=double", "/v1/models/double:predict"])
def test_an_unknown_content_encoding_is_415_and_named(tmp_path, path, coding):
    async def main():
        async with both_lanes(tmp_path) as (lane, _):
            status, _, body = await ask(lane, "POST", path, b"[[1, 2]]", ((b"content-encoding", coding.encode()),))
            assert status == 415
            assert json.loads(body)["error"] == f"Content-Encoding: want gzip or identity, got '{coding}'"

    asyncio.run(main())


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "identity, gzip", " gzip ,identity"])
def test_gzip_is_unpacked_under_each_of_its_names(tmp_path, coding):
    async def main():
        async with both_lanes(tmp_path) as (lane, _):
            header = ((b"content-encoding", coding.encode()),)
            body = b'{"instances": [[1, 2]]}'
            for packed in (gzip.compress(body), gzip.compress(body + b" " * 90_000), gzip.compress(body, 0)):
                status, _, answer = await ask(lane, "POST", "/v1/models/double:predict", packed, header)
                assert (status, json.loads(answer)) == (200, {"predictions": [[2.0, 4.0]]})
            too_much = gzip.compress(body + b" " * MOST_BYTES)
            assert (await ask(lane, "POST", "/v1/models/double:predict", too_much, header))[0] == 413
            assert (await ask(lane, "POST", "/v1/models/double:predict", body, header))[0] == 400

    asyncio.run(main())


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/double", "/readyz", "/readyz/double", "/metrics"])
def test_the_unforeseen_outside_of_scoring_is_told_by_an_id_and_logged(tmp_path, monkeypatch, caplog, path):
    def broken(*arguments):
        raise RuntimeError("secret detail")

    async def main():
        async with both_lanes(tmp_path) as (lane, app):
            for question in ("statuses", "state"):
                monkeypatch.setattr(ModelManager, question, broken)
            monkeypatch.setattr(Metrics, "render", broken)
            answers = [await ask(way, "GET", path, b"", ((b"x-request-id", b"mine"),)) for way in (lane, app)]
            assert answers[0] == answers[1]
            status, headers, body = answers[0]
            assert (status, dict(headers)[b"x-request-id"]) == (500, b"mine")
            assert b"secret" not in body
            assert "mine" in json.loads(body)["error"]

    asyncio.run(main())
    assert "RuntimeError: secret detail" in caplog.text


def test_an_unforeseen_request_without_an_id_gets_one(tmp_path, monkeypatch):
    async def main():
        async with both_lanes(tmp_path) as (lane, _):
            monkeypatch.setattr(ModelManager, "names", lambda self: 1 / 0)
            status, headers, body = await ask(lane, "GET", "/v1/models")
            assert status == 500
            assert dict(headers)[b"x-request-id"].decode() in json.loads(body)["error"]

    asyncio.run(main())


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
    assert is_service_path(path) is found

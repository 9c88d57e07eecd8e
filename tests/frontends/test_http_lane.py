"""The short lane and FastAPI give the same bytes for every request; ids and clock are injected."""

import asyncio
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
from accelserve.frontends.pictures import DecodeLimits, PictureDecoder
from accelserve.lifecycle import Lifecycle
from accelserve.models.loading import Loader
from accelserve.models.manager import ModelManager
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
    async with ModelManager(configs, loader, clock, metrics, "digits") as models:
        await models.changed(models.settled)
        scorer, exchange = Scorer(models, clock), HttpExchange(metrics, clock, lambda: "an-id")
        raw = RawScoring(scorer, decoder, exchange, MOST_BYTES)
        rest = TfServingRest(scorer, models, exchange, MOST_BYTES)
        app = build_app(raw, rest, Operations(models, metrics, Lifecycle()))
        yield HttpLane(app, raw.handle, rest.handle), app
    decoder.close()


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

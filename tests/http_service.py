"""The HTTP front end whole, over a real scheduler and small models, without a socket: once for each lane."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from uvicorn.config import Config
from uvicorn.server import ServerState

from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.discovery import BackendPool
from accelserve.backends.probes import onnx_runtime, synthetic
from accelserve.builtin import digits_path
from accelserve.codecs.round_trip import check_round_trip
from accelserve.config import ModelConfig
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.guard import Guard
from accelserve.frontends.http_app import build_app, build_lane
from accelserve.frontends.http_exchange import HttpExchange
from accelserve.frontends.http_lane import HttpLane
from accelserve.frontends.http_ops import Operations
from accelserve.frontends.http_protocol import HttpConnectionPolicy, HttpLimits, HttpProtocol, protocol_class
from accelserve.frontends.http_raw import RawScoring
from accelserve.frontends.http_tfserving import TfServingRest
from accelserve.frontends.offload import Offload
from accelserve.frontends.pictures import DecodeLimits, PictureDecoder
from accelserve.frontends.readiness import Readiness
from accelserve.lifecycle import Lifecycle
from accelserve.models.loading import Loader
from accelserve.models.manager import ModelManager
from accelserve.models.resident import VersionLoader
from accelserve.models.watch import PathSource
from accelserve.observability.metrics import Metrics
from accelserve.scoring import Scorer
from fake_http import FakeLoop, Wire
from http_cases import MOST_BODY_BYTES

FAST, SLOW = "fast", "slow"
LANES = (FAST, SLOW)
DATE = (b"date", b"Thu, 26 Nov 2026 12:00:00 GMT")
LIMITS = HttpLimits(max_body_bytes=MOST_BODY_BYTES, max_header_bytes=8192, max_headers=40, max_queued_requests=64)
SETTLED_TURNS = 30  # of the loop without a byte, after which nothing more comes by itself
PATIENCE_S = 20.0

_X = '[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
_MODELS = {
    "double": 'behaviour = "double"\n' + _X,
    "pair": '[inputs.a]\nshape = [-1, 1]\noutput = "c"\n[inputs.b]\nshape = [-1, 2]\noutput = "d"\n',
    "text": '[inputs.s]\ndtype = "string"\nshape = [-1]\noutput = "t"\n',
    "slow": "delay_ms = 60\n" + _X,
    "picky": "fail_if_contains = 666\nitem_error_if_contains = 13\n" + _X,
    "fragile": "fail_every = 1\n" + _X,
    "broken": 'load_error = "it is broken"\n' + _X,
}


def write_models(folder: Path) -> dict[str, Path]:
    """The models that the cases ask, by name; "digits" is the default, "many" a folder of versions."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"digits": digits_path(), "many": folder / "many"}
    for name, text in _MODELS.items():
        paths[name] = folder / f"{name}.synthetic.toml"
        paths[name].write_text(text)
    for version in (1, 2):
        (folder / "many" / str(version)).mkdir(parents=True)
        (folder / "many" / str(version) / "synthetic.toml").write_text(_MODELS["double"])
    return paths


class FrozenClock:
    """Time stands still, so that both lanes say the same of it."""

    def now_ns(self) -> int:
        return 1_000_000


class CountedExchange(HttpExchange):
    """Knows whether a handler is at work."""

    busy = 0

    async def run(self, request, handler, record=None):
        self.busy += 1
        try:
            return await super().run(request, handler, record)
        finally:
            self.busy -= 1

    async def run_together(self, requests, present, handler):
        self.busy += 1
        try:
            return await super().run_together(requests, present, handler)
        finally:
            self.busy -= 1


@dataclass
class Service:
    """A server without a socket. lane: how scoring is answered. told: what the connections refused by themselves."""

    lane: str
    policy: HttpConnectionPolicy
    app: object
    exchange: CountedExchange
    metrics: Metrics
    told: list[Kind]

    def connect(self) -> "Connection":
        return Connection(self)


@asynccontextmanager
async def serving(
    folder: Path, lane: str, limits: HttpLimits = LIMITS, guard: Guard | None = None
) -> AsyncIterator[Service]:
    configs = [ModelConfig(name, path) for name, path in write_models(folder).items()]
    clock, lifecycle, told = FrozenClock(), Lifecycle(), []
    metrics = Metrics(clock)
    loader = Loader(
        BackendPool([onnx_runtime(), synthetic()]),
        FolderArtifactCache(folder / "cache"),
        folder / "leases",
        check_round_trip,
    )
    pictures, offload = PictureDecoder(1, DecodeLimits(10**7), clock), Offload()

    def refused(kind: Kind) -> None:
        told.append(kind)
        with metrics.open("http") as record:
            record.failed(ScoringError(kind, ""), str(kind.http_status))

    try:
        versions = VersionLoader(loader, clock, metrics)
        async with ModelManager([PathSource(configs)], versions, default="digits") as models:
            await models.changed(models.settled)
            scorer, exchange = Scorer(models, clock), CountedExchange(metrics, clock, lambda: "an-id")
            raw = RawScoring(scorer, pictures, exchange, offload, limits.max_body_bytes)
            rest = TfServingRest(scorer, models, pictures, exchange, offload, limits.max_body_bytes)
            readiness = Readiness(models, lifecycle)
            app = build_app(raw, rest, Operations(models, metrics, lifecycle, readiness))
            fast = build_lane(raw, rest) if lane == FAST else HttpLane(())
            policy = HttpConnectionPolicy(limits, refused=refused, lane=fast, guard=guard)
            yield Service(lane, policy, app, exchange, metrics, told)
    finally:
        pictures.close()
        offload.close()


@dataclass(frozen=True)
class Answer:
    """headers: lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Answer":
        """All that one request got."""
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        return cls(int(first.split()[1]), dict([line.split(": ", 1) for line in lines]), body)

    @property
    def error(self) -> str:
        """The message of `{"error": message}`."""
        document = json.loads(self.body)
        assert document.keys() == {"error"}
        return document["error"]


@dataclass(frozen=True)
class Heard:
    """What a client got of one connection. ended: no more answers come; closed: nor is anything read."""

    written: bytes
    ended: bool
    closed: bool
    aborted: bool


class Connection:
    """A client's side of one connection to a service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.loop = FakeLoop()
        self.wire = Wire()
        self.state = ServerState()
        self.state.default_headers = [DATE]
        config = Config(service.app, http=protocol_class(service.policy), log_config=None, lifespan="off", ws="none")
        self.protocol: HttpProtocol = config.http(config, self.state, {}, _loop=self.loop)
        self.wire.set_protocol(self.protocol)
        self.protocol.connection_made(self.wire)

    async def send(self, *pieces: bytes) -> bytes:
        """All at once. Returns what came back of it."""
        before = len(self.wire.written)
        for piece in pieces:
            self.wire.send(piece)
        await self.settle()
        return self.wire.written[before:]

    async def settle(self) -> None:
        """Until nothing more comes by itself."""
        loop = asyncio.get_running_loop()
        until, quiet, seen = loop.time() + PATIENCE_S, 0, len(self.wire.written)
        while quiet < SETTLED_TURNS:
            await asyncio.sleep(0)
            moved = self.wire.pump() or self._service.exchange.busy or len(self.wire.written) != seen
            quiet, seen = 0 if moved else quiet + 1, len(self.wire.written)
            assert loop.time() < until, "an answer does not come"

    async def answered(self) -> None:
        """Until anything at all has come back."""
        until = asyncio.get_running_loop().time() + PATIENCE_S
        while not self.wire.written:
            await self.settle()
            assert asyncio.get_running_loop().time() < until, "an answer does not come"

    async def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)
        await self.settle()

    async def lose(self) -> None:
        """The client is gone."""
        self.protocol.connection_lost(None)
        await self.settle()

    def heard(self) -> Heard:
        wire = self.wire
        return Heard(wire.written, wire.ended, wire.closed, wire.aborted)

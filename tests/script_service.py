"""The HTTP faces of entry scripts without a socket and without a process: the script is a function of the test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from accelserve.entry_script.framing import FrameKind, FrameReader
from accelserve.entry_script.heads import RequestHeads, ResponseHeads, ready_frame
from accelserve.entry_script.messages import ScriptRequest, ScriptResponse, WorkerReady, WorkerSettings
from accelserve.entry_script.pool import WorkerPool
from accelserve.entry_script.pool_policy import PoolPolicy
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.azml_cors import Cors
from accelserve.frontends.azml_dialect import AzmlDialect, refused_by_connection
from accelserve.frontends.azml_face import AzmlFace, azml_lane
from accelserve.frontends.guard import Guard
from accelserve.frontends.http_asgi import AnyMethod
from accelserve.frontends.http_ids import AzmlIds
from accelserve.frontends.http_lane import HttpLane
from accelserve.frontends.http_policy import HttpConnectionPolicy
from accelserve.frontends.offload import Offload
from accelserve.frontends.script_exchange import ScriptExchange
from accelserve.lifecycle import Lifecycle
from accelserve.observability.metrics import Metrics
from http_service import FAST, LIMITS, FrozenClock, Service

Script = Callable[[ScriptRequest], ScriptResponse | None]
SWAGGER = {"2": '{"swagger": "2.0"}', "3": '{"openapi": "3.0.3"}', "3.1": '{"openapi": "3.1.0"}'}


def echo(request: ScriptRequest) -> ScriptResponse:
    """Tells what came: method, query and body."""
    said = b"%s ?%s %s" % (request.method.encode(), request.query_string, request.body)
    return ScriptResponse(200, said, "text/plain; charset=utf-8", (), 64_000)


@dataclass
class ScriptWorker:
    """Answers at once, in the loop's next turn; never where the script answers None. dies: with this request body."""

    number: int
    pool: WorkerPool
    script: Script
    pid: int = 1
    dies: bytes = b"die"
    reader: FrameReader = field(default_factory=FrameReader)
    requests: RequestHeads = field(default_factory=RequestHeads)
    responses: ResponseHeads = field(default_factory=ResponseHeads)

    def send(self, buffers: Sequence[bytes]) -> None:
        loop = asyncio.get_running_loop()
        for frame in self.reader.feed(b"".join(buffers)):
            if frame.kind is FrameKind.SETTINGS:
                ready = ready_frame(WorkerReady("rawhttp", False, SWAGGER))
                loop.call_soon(self.pool.worker_told, self.number, ready)
                continue
            request = self.requests.request(frame)
            if request.body == self.dies:
                loop.call_soon(self.pool.worker_ended, self.number, "it was ended by SIGSEGV")
            elif (response := self.script(request)) is not None:
                answer = self.responses.frame(frame.request_id, response)
                loop.call_soon(self.pool.worker_told, self.number, answer)

    def kill(self, why: str) -> None:
        self.pool.worker_ended(self.number, why)

    def close(self) -> None:
        self.pool.worker_ended(self.number, "it ended with exit code 0")


@dataclass
class AlwaysIdle:
    """Stands in for the exchange of `http_service.Service`: answers come by themselves."""

    busy: int = 0


@dataclass
class ScriptService(Service):
    pool: WorkerPool = None  # type: ignore[assignment]
    lifecycle: Lifecycle = field(default_factory=Lifecycle)


@asynccontextmanager
async def azml_serving(
    lane: str,
    script: Script = echo,
    *,
    strict: bool = False,
    origins: Sequence[str] = (),
    version: str = "face/1",
    guard: Guard | None = None,
) -> AsyncIterator[ScriptService]:
    """azmlinfsrv's face."""
    clock, lifecycle, told = FrozenClock(), Lifecycle(), []
    metrics, offload = Metrics(clock), Offload()

    def launch(number: int, environ: Mapping[str, str], owner: WorkerPool, clock: FrozenClock) -> ScriptWorker:
        return ScriptWorker(number, owner, script)

    def refused(kind: Kind) -> None:
        told.append(kind)
        with metrics.open("http") as record:
            record.failed(ScoringError(kind, ""), str(kind.http_status))

    try:
        async with WorkerPool(WorkerSettings("s.py", "/"), PoolPolicy(workers=2), clock, launch=launch) as pool:
            await pool.started()
            ids = AzmlIds(version, lambda: "0123456789abcdef" * 2)
            dialect = AzmlDialect(ids, Cors(origins, strict=strict), strict=strict)
            asked = (pool, metrics, clock, dialect, offload, LIMITS.max_body_bytes, "ML service")
            exchange = ScriptExchange(*asked, unpacks=not strict)
            face = AzmlFace(exchange, pool, dialect, lifecycle, metrics)
            fast = azml_lane(exchange) if lane == FAST else HttpLane(())
            policy = HttpConnectionPolicy(LIMITS, refused=refused, tell=refused_by_connection, lane=fast, guard=guard)
            app = AnyMethod(face.handle)
            yield ScriptService(lane, policy, app, AlwaysIdle(), metrics, told, pool, lifecycle)
    finally:
        offload.close()

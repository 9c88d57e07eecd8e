"""The composition root: builds everything, opens it in order, closes it in reverse, and obeys signals."""

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from accelserve import __version__
from accelserve.allocator import raise_malloc_thresholds, return_free_memory
from accelserve.backends.cuda.nvml import open_monitor
from accelserve.builtin import pictures as builtin_pictures
from accelserve.clock import Clock, MonotonicClock
from accelserve.codecs.jpeg import JpegDecoder, decode_jpeg
from accelserve.codecs.jpeg_on_gpu import check_decoder, open_gpu_decoder
from accelserve.config import ServerConfig
from accelserve.cpus import usable_cpus
from accelserve.entry_script.pool import WorkerPool
from accelserve.errors import ExitCode
from accelserve.frontends.decode_pool import ONE_CORE_PATIENCE_NS
from accelserve.frontends.doors import Doors
from accelserve.frontends.grpc_calls import GrpcCalls
from accelserve.frontends.grpc_core import CoreServer
from accelserve.frontends.grpc_health import GrpcHealth
from accelserve.frontends.grpc_porter import GrpcPorter
from accelserve.frontends.grpc_server import build_grpc_server
from accelserve.frontends.grpc_tfserving import TfServingGrpc
from accelserve.frontends.http_app import Scoring, build_app, build_lane
from accelserve.frontends.http_exchange import HttpExchange
from accelserve.frontends.http_ops import Operations
from accelserve.frontends.http_protocol import HttpConnectionPolicy
from accelserve.frontends.http_raw import RawScoring
from accelserve.frontends.http_script import ScriptScoring, ServerDialect
from accelserve.frontends.http_server import HttpServer, build_http_server, http_limits, open_http_socket
from accelserve.frontends.http_tfserving import TfServingRest
from accelserve.frontends.offload import Offload
from accelserve.frontends.pictures import DecodeLimits, PictureDecoder
from accelserve.frontends.readiness import Readiness
from accelserve.frontends.script_exchange import ScriptExchange
from accelserve.frontends.security import Security, open_security
from accelserve.idle_memory import return_memory_when_idle
from accelserve.lifecycle import Lifecycle
from accelserve.loaders import build_loader
from accelserve.models.gauges import model_gauges
from accelserve.models.keeper import KeeperPolicy
from accelserve.models.manager import ModelManager
from accelserve.models.reload import ReloadPolicy
from accelserve.models.resident import VersionLoader
from accelserve.models.servable import Servable
from accelserve.models.sources import build_sources
from accelserve.observability.metrics import Gauge, Metrics
from accelserve.process_ends import die_with
from accelserve.scoring import Scorer
from accelserve.script_service import check_script, private_door, script_pool
from accelserve.stopping import StopSignals, all_of, answer_on, first, run_until_stopped, stopped
from accelserve.supervised import Line, Supervised

logger = logging.getLogger("accelserve.runtime")
_FORCED_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class Ready:
    """Where the server listens, once it is ready, or waits for its first model: then models is empty."""

    http_url: str
    grpc_address: str
    models: tuple[str, ...]

    def __str__(self) -> str:
        tls = ", TLS" if self.http_url.startswith("https:") else ""
        where = f"{self.http_url} (HTTP) {self.grpc_address} (gRPC{tls})"
        if not self.models:
            return f"accelserve {__version__} is listening: {where} serving no model yet"
        return f"accelserve {__version__} is ready: {where} serving {', '.join(self.models)}"


@dataclass(frozen=True, slots=True)
class Parts:
    """What the front ends stand on. script: the entry script's workers, where there is one. security: who may ask."""

    models: ModelManager
    scorer: Scorer
    pictures: PictureDecoder
    offload: Offload
    readiness: Readiness
    script: WorkerPool | None
    security: Security

    def gauges(self) -> Iterator[Gauge]:
        yield from model_gauges(self.models)
        yield from self.pictures.gauges()
        yield from self.security.gauges()
        if self.script is not None:
            yield from self.script.gauges()

    def knows(self, model: str, version: str) -> bool:
        """The script has no versions, and is always there."""
        return not version or self.models.knows(model, version)


class Runtime:
    """One server in one process."""

    def __init__(self, config: ServerConfig, clock: Clock | None = None, supervised: Supervised | None = None) -> None:
        """supervised: by whom, of one of several processes that share their ports."""
        self._config = config
        self._supervised = supervised
        self._clock = clock or MonotonicClock()
        self._lifecycle = Lifecycle()
        self._metrics = Metrics(self._clock)
        self._policy = HttpConnectionPolicy(http_limits(config), refused=self._metrics.refused)
        self._wants_models = bool(config.models or config.store or not config.entry_script)

    async def run(self, signals: StopSignals, on_ready: Callable[[Ready], None]) -> ExitCode:
        """Serve until told to stop, or until there is nothing left to serve.

        Raises ScoringError(CONFLICT) when a port is taken.
        """
        raise_malloc_thresholds()
        if self._config.entry_script:
            check_script(self._config.entry_script)
        async with AsyncExitStack() as stack:
            private = stack.enter_context(private_door()) if self._config.entry_script else None
            security = open_security(self._config, private.key if private is not None else "")
            following = asyncio.create_task(security.follow())
            stack.callback(following.cancel)
            http_socket = self._http_socket()
            stack.callback(http_socket.close)
            models = self._models()
            pictures = self._pictures()
            stack.callback(pictures.close)
            offload = Offload()
            stack.callback(offload.close)
            gpus = await asyncio.to_thread(open_monitor)
            script = script_pool(self._config, private, self._clock, os.environ) if private is not None else None
            readiness = Readiness(models, self._lifecycle, script, wants_models=self._wants_models)
            parts = Parts(models, Scorer(models, self._clock), pictures, offload, readiness, script, security)
            self._metrics.gauges = lambda: (*parts.gauges(), *gpus.gauges())
            self._metrics.is_there = parts.knows
            doors = self._doors(parts, http_socket, private.address if private is not None else "")
            if not doors.shared:
                doors.bind()
            await stack.enter_async_context(models)
            if script is not None:
                await stack.enter_async_context(script)
                telling = asyncio.create_task(_tell_changes(script.moved, models))
                stack.callback(telling.cancel)
            http_task = asyncio.create_task(doors.serve_http())
            stack.push_async_callback(doors.close, models, http_task)
            stop = asyncio.create_task(stopped(signals, http_task))
            stack.callback(stop.cancel)
            idle = asyncio.create_task(return_memory_when_idle(self._metrics.traffic, return_free_memory))
            stack.callback(idle.cancel)
            if self._supervised is not None:
                line = Line(self._supervised.line, lambda: self._report(readiness, doors))
                line.open()
                stack.callback(line.close)
            else:
                await doors.open()
            if (code := await self._settle(parts, stop)) is not None:
                return code
            if doors.shared:
                doors.bind()
                await doors.open()
            return await self._serve(
                models, signals, stop, lambda: on_ready(self._ready(models, http_socket, doors.grpc_port))
            )

    # -- parts ------------------------------------------------------------------------------------------------------

    def _models(self) -> ModelManager:
        config = self._config
        loader = build_loader(config.device, config.threads, config.instances, config.backends, config.lease_dir)
        versions = VersionLoader(loader, self._clock, self._metrics, return_free_memory)
        # The front ends close first: a batch that runs when the models close runs for nobody.
        policy = KeeperPolicy(config.poll_interval_s, _FORCED_CLOSE_S, ReloadPolicy(attempts=config.reload_attempts))
        follows = f"store {config.store}" if config.store and config.poll_interval_s else ""
        if not self._wants_models:
            follows = "this server, which answers with its entry script,"
        names = {"default": config.default_model, "service": config.service}
        return ModelManager(build_sources(config), versions, policy, follows=follows, **names)

    def _pictures(self) -> PictureDecoder:
        config = self._config
        limits = DecodeLimits(config.max_pixels)
        decoder = _jpeg_decoder(config.jpeg_decoder)
        patience_ns = ONE_CORE_PATIENCE_NS if usable_cpus() == 1 else 0
        return PictureDecoder(_decode_threads(config.decode_threads), limits, self._clock, decoder, patience_ns)

    def _http_socket(self) -> socket.socket:
        """Listening; a supervisor's, or one of our own. Raises ScoringError(CONFLICT)."""
        if self._supervised is not None:
            return socket.socket(fileno=self._supervised.http)
        return open_http_socket(self._config.host, self._config.http_port)

    def _doors(self, parts: Parts, http_socket: socket.socket, private: str) -> Doors:
        """private: gRPC's address for the entry script's workers, "" without any."""
        config = self._config
        return Doors(
            self._http(parts),
            http_socket,
            self._grpc(parts),
            (config.host, config.grpc_port),
            self._lifecycle,
            self._policy,
            config.drain_timeout_s,
            shared=self._supervised is not None,
            private=private,
            tls=parts.security.tls,
        )

    def _http(self, parts: Parts) -> HttpServer:
        most = self._config.max_body_bytes
        exchange = HttpExchange(self._metrics, self._clock)
        raw: Scoring = RawScoring(parts.scorer, parts.pictures, exchange, parts.offload, most)
        if parts.script is not None:
            script = parts.script
            asked = (script, self._metrics, self._clock, ServerDialect(), parts.offload, most)
            exchanged = ScriptExchange(*asked, model=self._config.service)
            raw = ScriptScoring(exchanged, raw.handle, lambda: script.swagger)
        rest = TfServingRest(parts.scorer, parts.models, parts.pictures, exchange, parts.offload, most)
        app = build_app(raw, rest, Operations(parts.models, self._metrics, self._lifecycle, parts.readiness))
        self._policy.lane = build_lane(raw, rest)
        self._policy.guard = parts.security.http_guard
        shared, tls = self._supervised is not None, parts.security.tls
        return build_http_server(app, self._policy, self._config.drain_timeout_s, shared=shared, tls=tls)

    def _grpc(self, parts: Parts) -> CoreServer:
        tfserving = TfServingGrpc(parts.scorer, parts.models, parts.pictures, parts.offload)
        calls = GrpcCalls(self._metrics, self._clock, self._lifecycle)
        handlers = tfserving.handlers(calls)
        health = GrpcHealth(parts.models, self._lifecycle, parts.readiness).handlers()
        shared, guard = self._supervised is not None, parts.security.grpc_guard
        porter = GrpcPorter(guard, calls) if guard is not None else None
        most = self._config.grpc_max_message_bytes
        return build_grpc_server((handlers, health), most, shared=shared, porter=porter)

    def _ready(self, models: ModelManager, http_socket: socket.socket, grpc_port: int) -> Ready:
        host = f"[{self._config.host}]" if ":" in self._config.host else self._config.host
        http_port = http_socket.getsockname()[1]
        listed = tuple(f"{s.name}:{s.version} on {_devices(s)}" for s in models.servables())
        if self._config.entry_script:
            count = "1 worker" if self._config.workers == 1 else f"{self._config.workers} workers"
            listed = (f"{Path(self._config.entry_script).name} in {count}", *listed)
        scheme = "https" if self._config.tls_cert else "http"
        return Ready(f"{scheme}://{host}:{http_port}", f"{host}:{grpc_port}", listed)

    # -- life -------------------------------------------------------------------------------------------------------

    async def _settle(self, parts: Parts, stop: "asyncio.Task[None]") -> ExitCode | None:
        """Wait for the loads, and the script. None when there is something to serve, else how the process ends.

        Raises ScoringError when the script does not start.
        """
        models = parts.models

        def enough() -> bool:
            return models.settled() or (self._config.strict and models.first_error() is not None)

        loads = [models.changed(enough)] if parts.script is None else [models.changed(enough), parts.script.started()]
        if not await first(all_of(loads), stop):
            return ExitCode.OK
        failed = self._config.strict and models.first_error() is not None
        return _why_it_ends(models) if failed or models.exhausted() else None

    async def _serve(
        self, models: ModelManager, signals: StopSignals, stop: "asyncio.Task[None]", tell: Callable[[], None]
    ) -> ExitCode:
        """Until told to stop, or until nothing is left to serve. tell: says where it listens, and what it serves."""
        goes_on = True
        tell()
        if self._wants_models and not models.ready():
            goes_on = await first(models.changed(lambda: models.ready() or models.exhausted()), stop)
            if models.ready():
                tell()
        if not goes_on or not await first(models.changed(models.exhausted), stop):
            await answer_on(signals, self._config.grace_period_s, lambda: self._leave(models))
            return ExitCode.OK
        return _why_it_ends(models)

    async def _leave(self, models: ModelManager) -> None:
        """Readiness off, and no connection is kept."""
        self._lifecycle.stopping = True
        self._policy.draining = True
        await models.announce()

    async def _report(self, readiness: Readiness, doors: Doors) -> dict[str, object]:
        """What a supervisor is told."""
        ready = doors.are_open and readiness.ready()
        reason = "" if ready else readiness.why_not()
        return {"ready": ready, "reason": reason, "in_flight": self._metrics.traffic()[1]}


def _why_it_ends(models: ModelManager) -> ExitCode:
    """Of a server that was not told to stop."""
    error = models.first_error()
    logger.error("the server ends: %s", error.message if error is not None else "nothing is left to serve")
    return ExitCode.of(error.kind) if error is not None else ExitCode.LOAD_FAILED


async def _tell_changes(moved: asyncio.Event, models: ModelManager) -> None:
    """Those who watch the server's health look again when the script's has changed."""
    while True:
        await moved.wait()
        moved.clear()
        await models.announce()


def _devices(servable: Servable) -> str:
    return ", ".join(device.id for device in servable.model.devices)


def _jpeg_decoder(device: str) -> JpegDecoder:
    """Raises ScoringError(DEVICE_MISSING) when a GPU is to decode and cannot, or decodes something else."""
    if device == "cpu":
        return decode_jpeg
    number = int(device.partition(":")[2] or 0)
    decoder = open_gpu_decoder(number)
    difference = check_decoder(decoder, builtin_pictures()[0][0].read_bytes())
    logger.info("gpu:%d decodes JPEGs; a pixel differs from the CPU's by at most %d of 255", number, difference)
    return decoder


def _decode_threads(wanted: int) -> int:
    return wanted if wanted > 0 else max(1, usable_cpus() - 1)


def run_server(
    config: ServerConfig, on_ready: Callable[[Ready], None], supervised: Supervised | None = None
) -> ExitCode:
    """Run a server on this thread until it ends. Returns the process's exit code."""
    if supervised is not None:
        die_with(supervised.parent)
    return run_until_stopped(lambda signals: Runtime(config, supervised=supervised).run(signals, on_ready))

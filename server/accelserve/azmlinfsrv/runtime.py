"""The composition root of azmlinfsrv: workers first, then the sockets open, as with the original."""

import asyncio
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from accelserve import __version__
from accelserve.allocator import raise_malloc_thresholds, return_free_memory
from accelserve.azmlinfsrv.config import AzmlConfig
from accelserve.clock import Clock, MonotonicClock
from accelserve.entry_script.messages import WorkerSettings
from accelserve.entry_script.pool import WorkerPool
from accelserve.entry_script.pool_policy import pool_policy
from accelserve.errors import ExitCode
from accelserve.frontends.azml_cors import Cors
from accelserve.frontends.azml_dialect import AzmlDialect, refused_by_connection
from accelserve.frontends.azml_face import AzmlFace, azml_lane
from accelserve.frontends.guard import OPEN_HTTP
from accelserve.frontends.http_asgi import AnyMethod
from accelserve.frontends.http_ids import AzmlIds
from accelserve.frontends.http_policy import HttpConnectionPolicy
from accelserve.frontends.http_server import HttpServer, build_http_server, http_limits, open_http_socket
from accelserve.frontends.offload import Offload
from accelserve.frontends.script_exchange import ScriptExchange
from accelserve.frontends.security import open_security
from accelserve.frontends.tls import Tls
from accelserve.idle_memory import return_memory_when_idle
from accelserve.lifecycle import Lifecycle
from accelserve.observability.metrics import Metrics
from accelserve.stopping import StopSignals, answer_on, first, run_until_stopped, stopped

_ORIGINAL = "azmlinfsrv/1.5.1"
_FORCED_CLOSE_S = 1.0
_OPEN_HTTP = re.compile("/|" + OPEN_HTTP.pattern)  # "Healthy" at /, and our own probes


@dataclass(frozen=True, slots=True)
class AzmlReady:
    """Where it listens, once the script is ready. health_url: of the separate endpoint, "" without one."""

    url: str
    health_url: str
    script: str
    workers: int

    def __str__(self) -> str:
        health = f" {self.health_url} (health)" if self.health_url else ""
        count = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return (
            f"accelserve {__version__} azmlinfsrv is ready: {self.url} (HTTP){health} serving {self.script} in {count}"
        )


class AzmlRuntime:
    """One azmlinfsrv in one process, beside its workers."""

    def __init__(self, config: AzmlConfig, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or MonotonicClock()
        self._lifecycle = Lifecycle()
        self._metrics = Metrics(self._clock)
        limits = http_limits(config.server)
        self._policy = HttpConnectionPolicy(limits, refused=self._metrics.refused, tell=refused_by_connection)

    async def run(self, signals: StopSignals, on_ready: Callable[[AzmlReady], None]) -> ExitCode:
        """Until told to stop.

        Raises ScoringError: CONFLICT when a port is taken, PRECONDITION when the script does not start. The sockets
        listen from the first moment; who connects before the script is ready waits.
        """
        raise_malloc_thresholds()
        config = self._config
        # With --strict-compat the script gets OPTIONS too.
        preflight = bool(config.cors_origins) and not config.strict
        security = open_security(config.server, open_http=_OPEN_HTTP, open_preflight=preflight)
        self._policy.guard = security.http_guard
        async with AsyncExitStack() as stack:
            following = asyncio.create_task(security.follow())
            stack.callback(following.cancel)
            sockets = [open_http_socket(config.server.host, config.port, "--port")]
            stack.callback(sockets[0].close)
            if config.health_port is not None:
                sockets.append(open_http_socket(config.server.host, config.health_port, "--health_port"))
                stack.callback(sockets[1].close)
            offload = Offload()
            stack.callback(offload.close)
            pool = self._pool()
            self._metrics.gauges = lambda: (*pool.gauges(), *security.gauges())
            http = self._http(pool, offload, security.tls)
            asked = asyncio.create_task(signals.asked.wait())
            stack.callback(asked.cancel)
            idle = asyncio.create_task(return_memory_when_idle(self._metrics.traffic, return_free_memory))
            stack.callback(idle.cancel)
            await stack.enter_async_context(pool)
            if not await first(_started(pool), asked):
                return ExitCode.OK
            serving = asyncio.create_task(http.serve(sockets=sockets))
            stack.push_async_callback(self._close, http, serving)
            on_ready(self._ready(sockets))
            await stopped(signals, serving)
            await answer_on(signals, config.server.grace_period_s, self._leave)
            return ExitCode.OK

    # -- parts

    def _pool(self) -> WorkerPool:
        config = self._config
        policy = pool_policy(config.server, config.workers, config.timeout_ms)
        return WorkerPool(worker_settings(config), policy, self._clock, worker_environ(config))

    def _http(self, pool: WorkerPool, offload: Offload, tls: Tls | None) -> HttpServer:
        config, most = self._config, self._config.server.max_body_bytes
        version = "" if not config.tells_version else _ORIGINAL if config.strict else f"accelserve/{__version__}"
        cors = Cors(config.cors_origins, strict=config.strict)
        dialect = AzmlDialect(AzmlIds(version), cors, strict=config.strict)
        asked = (pool, self._metrics, self._clock, dialect, offload, most, config.service)
        exchange = ScriptExchange(*asked, unpacks=not config.strict)
        face = AzmlFace(exchange, pool, dialect, self._lifecycle, self._metrics)
        self._policy.lane = azml_lane(exchange)
        return build_http_server(AnyMethod(face.handle), self._policy, config.server.drain_timeout_s, tls=tls)

    def _ready(self, sockets: list[socket.socket]) -> AzmlReady:
        host = self._config.server.host
        shown = f"[{host}]" if ":" in host else host
        scheme = "https" if self._config.server.tls_cert else "http"
        urls = [f"{scheme}://{shown}:{each.getsockname()[1]}" for each in sockets]
        return AzmlReady(
            urls[0], urls[1] if len(urls) > 1 else "", self._config.entry_script.name, self._config.workers
        )

    # -- life

    async def _leave(self) -> None:
        """Health off, and no connection is kept."""
        self._lifecycle.stopping = True
        self._policy.draining = True

    async def _close(self, http: HttpServer, serving: "asyncio.Task[None]") -> None:
        """The sockets; what was accepted is answered within the drain timeout."""
        await self._leave()
        http.should_exit = True
        await asyncio.wait({serving}, timeout=self._config.server.drain_timeout_s + _FORCED_CLOSE_S)


async def _started(pool: WorkerPool) -> None:
    await pool.started()


def worker_settings(config: AzmlConfig) -> WorkerSettings:
    return WorkerSettings(
        script=str(config.entry_script),
        app_root=str(config.app_root),
        model_dir=config.model_dir,
        source_directory=str(Path(config.app_root, config.source_directory)) if config.source_directory else "",
        legacy_tensorflow=config.server.legacy_tensorflow,
        strict_compat=config.strict,
        service=config.service,
        service_version=config.service_version,
        path_prefix=config.path_prefix,
        timeout_ms=config.timeout_ms,
        nan=config.server.script_nan,
    )


def worker_environ(config: AzmlConfig) -> Mapping[str, str]:
    """What the original puts into its environment, where scripts look for it."""
    environ = {
        "AML_APP_ROOT": str(config.app_root),
        "AZUREML_ENTRY_SCRIPT": str(config.entry_script),
        "AML_APP_INSIGHTS_ENABLED": "false",
        "WORKER_COUNT": str(config.workers),
        "SERVER_PORT": str(config.port),
        "HEALTH_PORT": str(config.health_port or config.port),
    }
    if config.source_directory:
        environ["AZUREML_SOURCE_DIRECTORY"] = config.source_directory
    return environ


def run_azmlinfsrv(config: AzmlConfig, on_ready: Callable[[AzmlReady], None]) -> ExitCode:
    """Run it on this thread until it ends. Returns the process's exit code."""
    return run_until_stopped(lambda signals: AzmlRuntime(config).run(signals, on_ready))

"""Which models are there, and in what state: START, LOADING, AVAILABLE, UNLOADING, END (TF Serving's words)."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Protocol, Self, TypeVar

from accelserve.batching.scheduler import DRAIN_TIMEOUT_S, Scheduler
from accelserve.clock import Clock
from accelserve.config import ModelConfig
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef, VersionStatus
from accelserve.models.loading import Loader
from accelserve.models.servable import LoadedModel, Servable, WatchedSession

logger = logging.getLogger("accelserve.models")
T = TypeVar("T")
_LOST_RETRY_S = 5  # another replica, or this one started anew


class ModelState(Enum):
    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"

    @property
    def settled(self) -> bool:
        return self in (ModelState.AVAILABLE, ModelState.END)


class BatchMetrics(Protocol):
    """Where finished batches are counted; called on the event loop."""

    def batch_done(self, model: str, version: int, rows: int, padded_rows: int, compute_ns: int) -> None: ...


@dataclass(slots=True)
class _Entry:
    """One configured model as it moves through its states; only the manager changes it."""

    config: ModelConfig
    version: int = 0  # 0 until the path has been read
    state: ModelState = ModelState.START
    error: ScoringError | None = None
    servable: Servable | None = None


@dataclass(frozen=True, slots=True)
class _Observer:
    """Adds model and version to what a scheduler reports."""

    metrics: BatchMetrics
    model: str
    version: int

    def batch_done(self, rows: int, padded_rows: int, compute_ns: int) -> None:
        self.metrics.batch_done(self.model, self.version, rows, padded_rows, compute_ns)


class ModelManager:
    """Loads the configured models, each on its own, and finds the one a request means.

    Entering starts all loads and returns at once; leaving drains and closes what is loaded. A model that fails ends
    in END with its error and leaves the others alone.

    drain_timeout_s: how long leaving waits for batches that run; one that takes longer is left to end by itself.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        loader: Loader,
        clock: Clock,
        metrics: BatchMetrics,
        default: str = "",
        drain_timeout_s: float = DRAIN_TIMEOUT_S,
    ) -> None:
        self._entries = {config.name: _Entry(config) for config in configs}
        self._loader = loader
        self._clock = clock
        self._metrics = metrics
        self._default = default
        self._drain_timeout_s = drain_timeout_s
        self._changed = asyncio.Condition()
        self._loads: list[asyncio.Task[None]] = []
        self._losses: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._loads = [asyncio.create_task(self._bring_up(entry)) for entry in self._entries.values()]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._loads:
            task.cancel()
        await asyncio.gather(*self._loads, return_exceptions=True)
        # What loses its device meanwhile is taken down by its own task.
        await asyncio.gather(*self._losses, *(self._take_down(entry) for entry in self._entries.values()))

    # -- what is asked ------------------------------------------------------------------------------------------

    def resolve(self, ref: ModelRef) -> Servable:
        """The version that a request means.

        Raises ScoringError: INVALID (no name and several models, or a label), NOT_FOUND, LOADING. The texts are
        TF Serving's (specs/tfserving.md 1.5), since readiness probes and clients search them.
        """
        entry = self._entries.get(ref.name) if ref.name else self._unnamed()
        if entry is None:
            raise ScoringError(Kind.NOT_FOUND, f"Servable not found for request: {_asked(ref, ref.name)}")
        if ref.label is not None:
            raise ScoringError(Kind.INVALID, f"Unrecognized servable version label: {ref.label}")
        servable = entry.servable
        if servable is None:
            raise self._not_available(entry, ref)
        if ref.version is not None and ref.version != servable.version:
            raise ScoringError(Kind.NOT_FOUND, f"Servable not found for request: {_asked(ref, entry.config.name)}")
        return servable

    def _unnamed(self) -> _Entry:
        """The default model, else the only one (DESIGN section 5: real FPGA clients send no name)."""
        if self._default:
            return self._entries[self._default]
        if len(self._entries) == 1:
            return next(iter(self._entries.values()))
        names = ", ".join(sorted(name for name, entry in self._entries.items() if entry.error is None))
        message = f"the request names no model and there is no default one; say one of: {names}"
        raise ScoringError(Kind.INVALID, message, reason="model_not_named")

    @staticmethod
    def _not_available(entry: _Entry, ref: ModelRef) -> ScoringError:
        name = entry.config.name
        if entry.error is not None and entry.error.kind is Kind.DEVICE_LOST:
            return ScoringError(
                Kind.DEVICE_LOST, f"model {name} is unavailable: {entry.error.message}", retry_after_s=5
            )
        if entry.error is not None:
            message = f"Servable not found for request: {_asked(ref, name)}; it failed to load: {entry.error.message}"
            return ScoringError(Kind.NOT_FOUND, message, reason="load_failed")
        message = f"model {name} is not ready yet: {entry.state.value}"
        return ScoringError(Kind.LOADING, message, retry_after_s=1)

    def names(self) -> list[str]:
        return list(self._entries)

    def statuses(self, ref: ModelRef) -> list[VersionStatus]:
        """All versions of a model, newest first. Raises ScoringError(NOT_FOUND) in TF Serving's words."""
        entry = self._entries.get(ref.name) if ref.name else self._unnamed()
        if entry is None:
            raise ScoringError(Kind.NOT_FOUND, f"Could not find any versions of model {ref.name}")
        if ref.version is not None and ref.version != entry.version:
            message = f"Could not find version {ref.version} of model {entry.config.name}"
            raise ScoringError(Kind.NOT_FOUND, message)
        error = entry.error
        code, text = (error.kind.grpc_code, error.message) if error is not None else (0, "")
        return [VersionStatus(entry.version, entry.state.value, code, text)]

    def servables(self) -> Iterator[Servable]:
        return (entry.servable for entry in self._entries.values() if entry.servable is not None)

    def ready(self, name: str | None = None) -> bool:
        """One model: it is AVAILABLE. All: every model has settled and at least one is AVAILABLE."""
        if name is not None:
            entry = self._entries.get(name)
            return entry is not None and entry.state is ModelState.AVAILABLE
        states = [entry.state for entry in self._entries.values()]
        return all(state.settled for state in states) and ModelState.AVAILABLE in states

    def first_error(self) -> ScoringError | None:
        return next((entry.error for entry in self._entries.values() if entry.error is not None), None)

    async def changed(self, until: Callable[[], bool]) -> None:
        """Wait until `until()` holds; it is asked again after each change of a model's state."""
        async with self._changed:
            await self._changed.wait_for(until)

    async def announce(self) -> None:
        """Let everybody in `changed` look again: something outside the models has changed."""
        async with self._changed:
            self._changed.notify_all()

    def settled(self) -> bool:
        return all(entry.state.settled for entry in self._entries.values())

    # -- what happens -------------------------------------------------------------------------------------------

    async def _bring_up(self, entry: _Entry) -> None:
        try:
            source = await _in_thread(lambda: self._loader.find(entry.config))
            entry.version = source.artifact.version
            await self._move(entry, ModelState.LOADING)
            logger.info("loading %s:%d from %s", entry.config.name, entry.version, source.artifact.path)
            model = await _in_thread(lambda: self._loader.load(entry.config, source), LoadedModel.close)
            try:
                await self._open(entry, model)
            except BaseException:
                if entry.servable is None:  # else leaving takes it down
                    await _in_thread(model.close)
                raise
        except ScoringError as error:
            await self._fail(entry, error)
        except Exception as error:
            logger.exception("loading %s failed", entry.config.name)
            await self._fail(entry, ScoringError(Kind.INTERNAL, f"{type(error).__name__}: {error}"))

    async def _open(self, entry: _Entry, model: LoadedModel) -> None:
        observer = _Observer(self._metrics, entry.config.name, entry.version)
        loop = asyncio.get_running_loop()
        session = WatchedSession(model.session, lambda error: loop.call_soon_threadsafe(self._lose, entry, error))
        scheduler = Scheduler(
            session,
            model.policy,
            self._clock,
            max_inflight=model.capabilities.max_inflight,
            observer=observer,
            name=f"{entry.config.name}:{entry.version}",
        )
        await scheduler.__aenter__()
        entry.servable = Servable(model, scheduler)
        device, report = model.session.device, model.report
        logger.info(
            "%s:%d is AVAILABLE on %s (%s%s), loaded in %.2f s, warmed in %.2f s; self-check: %s",
            entry.config.name,
            entry.version,
            device.id,
            model.backend,
            ", emulated" if device.emulated else "",
            report.load_s,
            report.warmup_s,
            report.check.detail,
        )
        await self._move(entry, ModelState.AVAILABLE)

    async def _fail(self, entry: _Entry, error: ScoringError) -> None:
        logger.error("model %s does not load: %s", entry.config.name, error.message)
        entry.error = error
        await self._move(entry, ModelState.END)

    def _lose(self, entry: _Entry, error: ScoringError) -> None:
        """The model's device is gone: no new requests, and what is accepted fails as it comes to run."""
        if entry.error is None:
            logger.error("model %s is lost: %s", entry.config.name, error.message)
            entry.error = error
            self._losses.append(asyncio.get_running_loop().create_task(self._take_down(entry)))

    async def _take_down(self, entry: _Entry) -> None:
        servable, entry.servable = entry.servable, None
        if servable is None:
            return
        await self._move(entry, ModelState.UNLOADING)
        drained = await servable.scheduler.drain(self._drain_timeout_s)
        await servable.scheduler.__aexit__(None, None, None)
        if drained:  # closing a session waits for its runs
            await _in_thread(servable.model.close)
        await self._move(entry, ModelState.END)

    async def _move(self, entry: _Entry, state: ModelState) -> None:
        async with self._changed:
            entry.state = state
            self._changed.notify_all()


def _asked(ref: ModelRef, name: str) -> str:
    return f"Latest({name})" if ref.version is None else f"Specific({name}, {ref.version})"


async def _in_thread(work: Callable[[], T], discard: Callable[[T], None] = lambda _: None) -> T:
    """Run blocking `work` in a daemon thread, so that a process told to stop never waits for a hung load.

    discard: what to do with a result that nobody waits for any more.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            if error is None:
                discard(result)  # type: ignore[arg-type]
        elif error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:  # the loop has closed: the process ends
            logger.debug("a load ended after the server")

    threading.Thread(target=run, name="accelserve-load", daemon=True).start()
    return await future

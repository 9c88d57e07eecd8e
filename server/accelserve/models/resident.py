"""A version in memory, from its load to its end: its sessions, its queue, and its hold on the store."""

import asyncio
import logging
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from accelserve.batching.scheduler import Scheduler
from accelserve.clock import Clock
from accelserve.config import ModelConfig
from accelserve.errors import ScoringError
from accelserve.models.loading import Loader, LoadStage
from accelserve.models.servable import LoadedModel, Servable
from accelserve.models.tasks import first_of, in_thread
from accelserve.models.watch import Hold, ModelSource, Seen

logger = logging.getLogger("accelserve.models")

_CLOSE_LIMIT_S = 10.0  # a driver that has lost its device may never come back from freeing it


class BatchMetrics(Protocol):
    """Where finished batches are counted; called on the event loop."""

    def batch_done(
        self, model: str, version: int, device: str, rows: int, padded_rows: int, compute_ns: int
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class _Observer:
    """Adds model and version to what a scheduler reports."""

    metrics: BatchMetrics
    model: str
    version: int

    def batch_done(self, device: str, rows: int, padded_rows: int, compute_ns: int) -> None:
        self.metrics.batch_done(self.model, self.version, device, rows, padded_rows, compute_ns)


@dataclass(frozen=True, slots=True)
class _Held:
    """A loaded model, what keeps its files, and how its memory is given back."""

    model: LoadedModel
    hold: Hold | None
    return_memory: Callable[[], None]

    def close(self) -> None:
        try:
            self.model.close()
        finally:
            self.release()
            self.return_memory()

    def release(self) -> None:
        if self.hold is not None:
            self.hold.release()


@dataclass(frozen=True, slots=True)
class VersionLoader:
    """What bringing a version up needs.

    return_memory: called in a thread when a load has ended, and when a version has closed.
    """

    loader: Loader
    clock: Clock
    metrics: BatchMetrics
    return_memory: Callable[[], None] = lambda: None

    async def bring_up(
        self, config: ModelConfig, source: ModelSource, seen: Seen, stage: LoadStage | None = None
    ) -> "Resident":
        """Hold, load, warm, check, open. stage: told how far it is.

        Raises ScoringError; what was opened is closed again, also when cancelled.
        """
        held = await in_thread(lambda: self._load(config, source, seen, stage), _Held.close)
        try:
            scheduler = Scheduler(
                held.model.sessions,
                held.model.policy,
                self.clock,
                max_inflight=held.model.capabilities.max_inflight,
                observer=_Observer(self.metrics, config.name, seen.version),
                name=f"{config.name}:{seen.version}",
            )
            await scheduler.__aenter__()
        except BaseException:
            await in_thread(held.close)
            raise
        return Resident(held, scheduler)

    def _load(self, config: ModelConfig, source: ModelSource, seen: Seen, stage: LoadStage | None) -> _Held:
        hold = source.hold(config.name, seen.version)
        try:
            found = self.loader.find_version(config.name, seen.version, seen.place)
            return _Held(self.loader.load(config, found, stage), hold, self.return_memory)
        except BaseException:
            if hold is not None:
                hold.release()
            raise
        finally:
            self.return_memory()


class Resident:
    """A version that serves until it is told to leave; belongs to the event loop."""

    def __init__(self, held: _Held, scheduler: Scheduler) -> None:
        self.model = held.model
        self._held = held
        self._scheduler = scheduler
        self._unheld = asyncio.Event()

    def servable(self) -> Servable:
        """The handle that requests get; called once. TF Serving unloads when the last handle is dropped, as we do."""
        servable = Servable(self.model, self._scheduler)
        loop = asyncio.get_running_loop()
        # A request may drop it on a thread that reads its body.
        weakref.finalize(servable, _tell, loop, self._unheld).atexit = False
        return servable

    async def lost(self) -> ScoringError:
        """Wait until its last device is gone."""
        return await self._scheduler.lost()

    async def retire(self, handles_s: float, stop: asyncio.Event, drain_s: float) -> None:
        """It is replaced: answer all who have found it, however long that takes, then leave; at once when `stop` comes.

        handles_s: how long to wait for requests that hold it and are not queued yet.
        """
        await first_of(self._answer_all(handles_s), stop.wait())
        await self.leave(drain_s)

    async def leave(self, drain_s: float) -> None:
        """Free the devices and the files. drain_s: for accepted requests; one that takes longer ends by itself."""
        drained = await self._scheduler.drain(drain_s)
        await self._scheduler.__aexit__(None, None, None)
        if drained:  # closing a session waits for its runs
            await self._close()
        else:
            self._held.release()

    async def _answer_all(self, handles_s: float) -> bool:
        try:
            async with asyncio.timeout(handles_s):
                await self._unheld.wait()
        except TimeoutError:
            name = self.model.artifact.name
            logger.warning("%s: a request has held a replaced version for %.0f s and is left", name, handles_s)
        return await self._scheduler.drain(None)

    async def _close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_LIMIT_S):
                await in_thread(self._held.close)
        except TimeoutError:
            name, limit_s = self.model.artifact.name, _CLOSE_LIMIT_S
            logger.warning("%s takes longer than %.0f s to free its device; it is left to that", name, limit_s)
        except Exception:
            logger.exception("%s did not close as it should", self.model.artifact.name)


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(event.set)

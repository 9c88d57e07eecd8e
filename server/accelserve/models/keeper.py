"""Looks at the sources, and brings versions up and down: the shell around the decisions of `lineup` and `versions`."""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from accelserve.backends.lease import DeviceTaken
from accelserve.batching.scheduler import DRAIN_TIMEOUT_S
from accelserve.cpus import usable_cpus
from accelserve.errors import Kind, ScoringError
from accelserve.models.board import Board
from accelserve.models.lineup import Lineup
from accelserve.models.loading import LoadStage
from accelserve.models.placement import placement_text
from accelserve.models.reload import ReloadPolicy
from accelserve.models.resident import Resident, VersionLoader
from accelserve.models.standing import Standing
from accelserve.models.tasks import first_of, in_thread
from accelserve.models.versions import ModelState
from accelserve.models.watch import ModelSource, Seen, Sighting

logger = logging.getLogger("accelserve.models")

_HANDLES_S = 30.0  # reading and decoding a request takes less, or nobody waits for it any more
_LOADS_PER_CPU = 4  # at a time, as TF Serving does at its start; a few that hang do not keep the others waiting
_HEALTH_EVERY_S = 0.1  # of a device that is being programmed: seconds to minutes
_S = 1e9


@dataclass(frozen=True, slots=True)
class KeeperPolicy:
    """poll_s: between two looks at the sources; 0 for one look only.

    drain_timeout_s: how long leaving waits for batches that run; one that takes longer is left to end by itself.
    chance: from 0 to 1, spreads the retries of many replicas.
    """

    poll_s: float = 0.0
    drain_timeout_s: float = DRAIN_TIMEOUT_S
    reload: ReloadPolicy = field(default_factory=ReloadPolicy)
    chance: Callable[[], float] = random.random


class Keeper:
    """Two loops, one that looks and one that acts, and a task for every version from its load to its end."""

    def __init__(
        self, board: Board, sources: Sequence[ModelSource], loader: VersionLoader, policy: KeeperPolicy
    ) -> None:
        self._board = board
        self._sources = sources
        self._loader = loader
        self._policy = policy
        self._source_of = {config.name: source for source in sources for config in source.expected()}
        self._now_ns = loader.clock.now_ns
        self._slots = asyncio.Semaphore(_LOADS_PER_CPU * usable_cpus())
        self._nudge = asyncio.Event()
        self._stop = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._lives: dict[Standing, asyncio.Task[None]] = {}
        self._retired: dict[Standing, asyncio.Event] = {}

    def start(self) -> None:
        self._loops = [asyncio.create_task(self._watch()), asyncio.create_task(self._act())]

    async def stop(self) -> None:
        """Give up what is being loaded; drain and close what is loaded."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._stop.set()
        for standing, task in self._lives.items():
            if standing.state is ModelState.LOADING:
                task.cancel()
        await asyncio.gather(*self._lives.values(), return_exceptions=True)

    # -- looking ------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        blind: set[ModelSource] = set()
        while True:
            for source in self._sources:
                try:
                    await self._look(source)
                    blind.discard(source)
                except Exception as error:
                    if source not in blind:  # told once, until it can be seen again
                        foreseen = isinstance(error, OSError)
                        told = "models cannot be looked up; what is loaded serves on: %s"
                        logger.error(told, error, exc_info=None if foreseen else error)
                    blind.add(source)
            self._board.first_look_done()
            await self._changed()
            if not self._policy.poll_s:
                return
            await asyncio.sleep(self._policy.poll_s)

    async def _look(self, source: ModelSource) -> None:
        quiet = {(n, v) for n, lineup in self._board.lineups.items() for v in lineup.available_versions()}
        sightings = await in_thread(lambda: source.look(quiet))
        for sighting in sightings:
            lineup = self._board.lineup(sighting.config)
            self._source_of[lineup.name] = source
            _tell_sighting(lineup, sighting)
            lineup.see(sighting)
        seen = {sighting.config.name for sighting in sightings}
        for name, owner in self._source_of.items():
            if owner is source and name not in seen and not (lineup := self._board.lineups[name]).gone:
                logger.info("model %s is there no more and is unloaded", name)
                lineup.leave()

    # -- acting -------------------------------------------------------------------------------------------------

    async def _act(self) -> None:
        """Do what is due; again when something has changed or a retry is due."""
        while True:
            self._nudge.clear()
            for lineup in list(self._board.lineups.values()):
                try:
                    self._act_on(lineup)
                except Exception:  # the other models are cared for all the same
                    logger.exception("nothing could be done for model %s", lineup.name)
            await self._board.announce()
            wakes = [at_ns for lineup in self._board.lineups.values() if (at_ns := lineup.wake_at_ns()) is not None]
            wait_s = max(0.0, (min(wakes) - self._now_ns()) / _S) if wakes else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._nudge.wait()
            except TimeoutError:
                pass

    def _act_on(self, lineup: Lineup) -> None:
        for standing in lineup.begin_unload():
            logger.info("%s:%d answers what it has accepted, and is then unloaded", lineup.name, standing.version)
            self._retired[standing].set()
        if lineup.is_over:
            del self._board.lineups[lineup.name], self._source_of[lineup.name]
        elif (begun := lineup.begin_load(self._now_ns())) is not None:
            standing, seen = begun
            self._lives[standing] = asyncio.create_task(self._live(lineup, standing, seen))

    async def _changed(self) -> None:
        self._nudge.set()
        await self._board.announce()

    # -- one version --------------------------------------------------------------------------------------------

    async def _live(self, lineup: Lineup, standing: Standing, seen: Seen) -> None:
        retired = self._retired[standing] = asyncio.Event()
        try:
            resident = await self._bring_up(lineup, standing, seen)
            if resident is not None:
                await self._serve(lineup, standing, resident, retired)
        except Exception as error:
            logger.exception("%s:%d ended unforeseen", lineup.name, standing.version)
            standing.retire()
            standing.fail(ScoringError(Kind.INTERNAL, f"{type(error).__name__}: {error}"), self._now_ns(), 1.0)
        finally:
            del self._lives[standing], self._retired[standing]
            lineup.moved()
            await self._changed()

    async def _bring_up(self, lineup: Lineup, standing: Standing, seen: Seen) -> Resident | None:
        name, version = lineup.name, standing.version
        try:
            async with self._slots:
                logger.info("loading %s:%d from %s", name, version, seen.place)
                return await self._load(lineup, standing, seen)
        except ScoringError as error:
            self._fail(lineup, standing, error)
        except Exception as error:
            logger.exception("loading %s failed", name)
            self._fail(lineup, standing, ScoringError(Kind.INTERNAL, f"{type(error).__name__}: {error}"))
        return None

    async def _load(self, lineup: Lineup, standing: Standing, seen: Seen) -> Resident:
        """Where an older version has the device that only one can have, that one goes first: all that could be tried
        before has been."""
        try:
            return await self._load_once(lineup, standing, seen)
        except DeviceTaken as taken:
            if not (leaving := lineup.make_room(taken.device_id)):
                raise
            await self._until_gone(lineup, leaving, standing, taken.device_id)
        standing.took_over = True
        return await self._load_once(lineup, standing, seen)

    async def _until_gone(
        self, lineup: Lineup, leaving: Sequence[Standing], standing: Standing, device_id: str
    ) -> None:
        lives = [self._lives[each] for each in leaving]
        for each in leaving:
            told = "%s:%d answers what it has accepted and gives %s to version %d"
            logger.info(told, lineup.name, each.version, device_id, standing.version)
            self._retired[each].set()
        await self._changed()
        await asyncio.wait(lives)

    async def _load_once(self, lineup: Lineup, standing: Standing, seen: Seen) -> Resident:
        stage = LoadStage()
        following = asyncio.create_task(self._follow(standing, stage))
        try:
            return await self._loader.bring_up(lineup.config, self._source_of[lineup.name], seen, stage)
        finally:
            following.cancel()
            standing.health = None

    async def _follow(self, standing: Standing, stage: LoadStage) -> None:
        """Keep what is told of the device on which a version is being loaded."""
        while True:
            await asyncio.sleep(_HEALTH_EVERY_S)
            before = standing.health
            try:
                standing.device_id, standing.health = await in_thread(stage.health)
            except Exception:
                logger.exception("the health of %s cannot be asked", standing.device_id or "a device")
                return
            if standing.health != before:
                await self._board.announce()

    def _fail(self, lineup: Lineup, standing: Standing, error: ScoringError) -> None:
        standing.fail(error, self._now_ns(), self._policy.chance())
        lineup.moved()
        logger.error("model %s does not load: %s%s", lineup.name, error.message, self._what_now(lineup, standing))

    def _what_now(self, lineup: Lineup, standing: Standing) -> str:
        serving = f"; {lineup.name}:{lineup.current.version} serves on" if lineup.current is not None else ""
        at_ns = standing.reload.at_ns
        again = f"; version {standing.version} is tried again in {(at_ns - self._now_ns()) / _S:.1f} s" if at_ns else ""
        return serving + again

    async def _serve(self, lineup: Lineup, standing: Standing, resident: Resident, retired: asyncio.Event) -> None:
        standing.serve(resident.servable(), self._now_ns())
        lineup.moved()
        _tell_available(resident)
        await self._changed()
        loss = await first_of(resident.lost(), _none(retired), _none(self._stop))
        if loss is not None:
            standing.lose(loss, self._now_ns(), self._policy.chance())
            lineup.moved()
            logger.error("model %s is lost: %s%s", lineup.name, loss.message, self._what_now(lineup, standing))
        elif not retired.is_set():  # the server stops
            standing.retire()
        lineup.moved()
        await self._changed()
        if loss is None and retired.is_set():
            await resident.retire(_HANDLES_S, self._stop, self._policy.drain_timeout_s)
        else:
            await resident.leave(self._policy.drain_timeout_s)
        standing.state = ModelState.END
        logger.info("%s:%d has ended", lineup.name, standing.version)


async def _none(event: asyncio.Event) -> None:
    await event.wait()


def _tell_sighting(lineup: Lineup, sighting: Sighting) -> None:
    """What a look found wrong, once for each new finding."""
    problem, before = sighting.problem, lineup.problem
    if problem is not None and (before is None or before.message != problem.message):
        serving = f"; {lineup.name}:{lineup.current.version} serves on" if lineup.current is not None else ""
        logger.error("model %s does not load: %s%s", lineup.name, problem.message, serving)
    absent = set(sighting.config.versions.specific) - sighting.versions.keys()
    if problem is None and absent and sighting.versions.keys() != lineup.wanted.keys():
        missing = ", ".join(map(str, sorted(absent)))
        logger.warning("model %s: version %s is wanted and not there", lineup.name, missing)


def _tell_available(resident: Resident) -> None:
    model = resident.model
    report, placement = model.report, placement_text(model.session.placement)
    sessions = f" in {len(model.sessions)} instances" if len(model.sessions) > 1 else ""
    logger.info(
        "%s:%d is AVAILABLE on %s (%s%s)%s%s, loaded in %.2f s, warmed in %.2f s; %sself-check: %s",
        model.artifact.name,
        model.artifact.version,
        ", ".join(device.id for device in model.devices),
        model.backend,
        ", emulated" if model.emulated else "",
        sessions,
        "".join([f", pictures normalised {where}" for where in dict.fromkeys(model.pixels.where.values())]),
        report.load_s,
        report.warmup_s,
        f"{placement}; " if placement else "",
        report.check.detail,
    )
    if report.check.suspect:
        name, version = model.artifact.name, model.artifact.version
        logger.warning("%s:%d failed in every run before its first request; the next may fail too", name, version)

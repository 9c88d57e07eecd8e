"""All models at one moment, and who waits for the next: changed by the keeper, read by the manager."""

import asyncio
from collections.abc import Callable, Iterable

from accelserve.config import ModelConfig
from accelserve.models.lineup import Lineup
from accelserve.models.reload import ReloadPolicy


class Board:
    """Belongs to the event loop.

    lineups: by name, in the order in which they came. looked: every source has been looked at once. starting: the
    models that were there then.
    """

    def __init__(self, expected: Iterable[ModelConfig], policy: ReloadPolicy) -> None:
        self.lineups = {config.name: Lineup(config, policy) for config in expected}
        self.looked = False
        self.starting: tuple[str, ...] = ()
        self._policy = policy
        self._changed = asyncio.Condition()

    def lineup(self, config: ModelConfig) -> Lineup:
        """The model's, made when it is new."""
        found = self.lineups.get(config.name)
        if found is None:
            found = self.lineups[config.name] = Lineup(config, self._policy)
        return found

    def first_look_done(self) -> None:
        if not self.looked:
            self.looked, self.starting = True, tuple(self.lineups)

    @property
    def settled(self) -> bool:
        """Each model of the first look has loaded or failed once; what comes later does not unsettle the server."""
        there = (self.lineups[name] for name in self.starting if name in self.lineups)
        return self.looked and all(lineup.settled for lineup in there)

    async def changed(self, until: Callable[[], bool]) -> None:
        """Wait until `until()` holds; it is asked again after each change."""
        async with self._changed:
            await self._changed.wait_for(until)

    async def announce(self) -> None:
        """Let everybody in `changed` look again."""
        async with self._changed:
            self._changed.notify_all()

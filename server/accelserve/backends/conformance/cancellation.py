"""Callers that go away, through the server's own scheduler: their neighbours get their answers all the same."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from accelserve.backends.base import Batch, BatchResult, Capabilities, Session
from accelserve.backends.conformance.fixtures import WAIT_S, Checks
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler, Scored, Work
from accelserve.clock import MonotonicClock


class HeldSession:
    """A session whose runs wait until they are let go, so that a batch can be in flight for as long as is wanted."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._entered = threading.Semaphore(0)
        self._let_go = threading.Semaphore(0)
        self.batches: list[int] = []  # rows of each

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, batch: Batch) -> BatchResult:
        self.batches.append(batch.rows)
        self._entered.release()
        assert self._let_go.acquire(timeout=WAIT_S), "a run was never let go"
        return self._session.run(batch)

    async def entered(self) -> None:
        """Until one more run is in flight."""
        assert await asyncio.to_thread(self._entered.acquire, timeout=WAIT_S), "no batch came"

    def let_go(self, runs: int = 1) -> None:
        self._let_go.release(runs)


Play = Callable[[Scheduler, HeldSession], Awaitable[None]]


class CancellationChecks(Checks):
    def test_a_caller_who_leaves_the_queue_frees_his_place_and_nothing_else(
        self, session: Session, limits: Capabilities
    ) -> None:
        async def play(scheduler: Scheduler, held: HeldSession) -> None:
            first = scheduler.submit(self._work(session, 0))
            await held.entered()
            leaves, stays = (scheduler.submit(self._work(session, row)) for row in (1, 2))
            leaves.cancel()
            held.let_go(2)
            await self._assert_answered(first, 0, session, limits)
            await self._assert_answered(stays, 2, session, limits)
            assert sum(held.batches) == 2, "the row of a caller who had left was run"

        self._play(session, limits, play)

    def test_a_caller_who_leaves_in_flight_leaves_the_next_batch_alone(
        self, session: Session, limits: Capabilities
    ) -> None:
        async def play(scheduler: Scheduler, held: HeldSession) -> None:
            leaves = scheduler.submit(self._work(session, 0))
            await held.entered()
            stays = scheduler.submit(self._work(session, 1))
            leaves.cancel()
            held.let_go(2)
            await self._assert_answered(stays, 1, session, limits)

        self._play(session, limits, play)

    def test_a_caller_who_leaves_in_flight_leaves_his_batch_mates_alone(
        self, session: Session, limits: Capabilities
    ) -> None:
        rows = min(self._rows_that_ride_together(session, limits), 3)

        async def play(scheduler: Scheduler, held: HeldSession) -> None:
            first = scheduler.submit(self._work(session, 0))
            await held.entered()
            mates = [scheduler.submit(self._work(session, row)) for row in range(rows)]
            held.let_go()
            await held.entered()
            assert held.batches == [1, rows], "the rows did not ride together"
            mates[0].cancel()
            held.let_go()
            # Before the session is asked itself: it may run one at a time.
            await asyncio.gather(first, *mates, return_exceptions=True)
            await self._assert_answered(first, 0, session, limits)
            for row in range(1, rows):
                await self._assert_answered(mates[row], row, session, limits)

        self._play(session, limits, play)

    def _play(self, session: Session, limits: Capabilities, play: Play) -> None:
        """A scheduler of one run at a time on the session, as the server's."""
        if not session.signatures[self.signature].batched:
            pytest.skip("the sample has no rows to tell apart")

        async def with_scheduler() -> None:
            held = HeldSession(session)
            policy = BatchPolicy(self._most_rows(limits), self.options().batch_sizes)
            async with asyncio.timeout(WAIT_S), Scheduler([held], policy, MonotonicClock()) as scheduler:
                try:
                    await play(scheduler, held)
                finally:
                    held.let_go(8)

        asyncio.run(with_scheduler())

    def _work(self, session: Session, row: int) -> Work:
        signature = session.signatures[self.signature]
        return Work(signature, self._row(row), tuple(signature.outputs), rows=1, batched=True)

    async def _assert_answered(
        self, answer: Awaitable[Scored], row: int, session: Session, limits: Capabilities
    ) -> None:
        """As the session answers that row alone, when no scheduler is about."""
        scored = await answer
        self._assert_same(scored.outputs, await asyncio.to_thread(self._run, session, self._row(row)), limits)

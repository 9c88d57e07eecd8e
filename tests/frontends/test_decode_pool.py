"""The decode pool's threads and their bell, without pictures."""

import asyncio
import threading

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.decode_pool import DecodePool


class Counted:
    """A job that tells an event when `expected` of its kind are settled."""

    def __init__(self, settled, expected, all_settled):
        self.settled, self.expected, self.all_settled = settled, expected, all_settled
        self.worked_on = None

    def work(self):
        self.worked_on = threading.current_thread().name

    def settle(self):
        self.settled.append(self)
        if len(self.settled) == self.expected:
            self.all_settled.set()

    def drop(self):
        self.settled.append("dropped")


class Loud(Counted):
    """Raises in both its methods, after what the others do."""

    def work(self):
        super().work()
        raise SystemExit(3)

    def settle(self):
        super().settle()
        raise ValueError("loud")


def run(main, threads=1):
    async def with_pool():
        pool = DecodePool(threads)
        try:
            async with asyncio.timeout(20):
                await main(pool)
        finally:
            pool.close()

    asyncio.run(with_pool())


@pytest.mark.parametrize("threads", [1, 4])
def test_every_job_is_worked_on_by_a_thread_and_settled_once(threads):
    async def main(pool):
        settled, done = [], asyncio.Event()
        jobs = [Counted(settled, 5000, done) for _ in range(5000)]
        for job in jobs:
            pool.give(job)
        await done.wait()
        assert set(settled) == set(jobs)
        assert len(settled) == 5000
        assert all(job.worked_on.startswith("accelserve-decode-") for job in jobs)

    run(main, threads)


def test_jobs_that_finish_while_the_loop_is_busy_share_one_ring(monkeypatch):
    async def main(pool):
        settled, done, rings = [], asyncio.Event(), []
        loop = asyncio.get_running_loop()
        ring = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda call: (rings.append(call), ring(call)))
        worked = threading.Semaphore(0)
        for _ in range(50):
            job = Counted(settled, 50, done)
            job.work = worked.release
            pool.give(job)
        for _ in range(50):  # the loop stands still here
            assert worked.acquire(timeout=10)
        await done.wait()
        assert 1 <= len(rings) <= 2  # the last job may have been appended after the loop had looked

    run(main)


def test_a_job_that_raises_costs_no_other_its_answer(caplog):
    async def main(pool):
        settled, done = [], asyncio.Event()
        for kind in (Counted, Loud, Counted):
            pool.give(kind(settled, 3, done))
        await done.wait()
        pool.give(last := Counted([], 1, done := asyncio.Event()))
        await done.wait()
        assert last.worked_on

    run(main)
    assert "SystemExit" in caplog.text
    assert "loud" in caplog.text


def test_a_closed_pool_drops_what_it_has_not_begun_and_takes_nothing_more():
    async def main(pool):
        begun, go_on = threading.Event(), threading.Event()
        settled, done = [], asyncio.Event()
        first, second = Counted(settled, 2, done), Counted(settled, 2, done)
        first.work = lambda: (begun.set(), go_on.wait(10))
        pool.give(first)
        assert await asyncio.to_thread(begun.wait, 10)
        pool.give(second)
        pool.close()
        go_on.set()
        await done.wait()
        assert settled == ["dropped", first]
        with pytest.raises(ScoringError) as caught:
            pool.give(second)
        assert caught.value.kind is Kind.DRAINING

    run(main)


def test_a_thread_outlives_a_loop_that_was_closed_before_its_job_was_done(caplog):
    begun, go_on = threading.Event(), threading.Event()
    pool = DecodePool(1)

    async def give():
        job = Counted([], 1, asyncio.Event())
        job.work = lambda: (begun.set(), go_on.wait(10))
        pool.give(job)

    asyncio.run(give())
    assert begun.wait(10)
    (thread,) = pool._threads
    go_on.set()
    pool.close()
    thread.join(10)
    assert not thread.is_alive()
    assert "after the server had stopped" in caplog.text

"""The decode pool's threads and their bell, without pictures."""

import asyncio
import threading

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.decode_pool import DecodePool


class Counted:
    """A job that tells an event when `expected` of its kind are settled."""

    brief = True

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


class Clock:
    """Moved by hand."""

    def __init__(self):
        self.ns = 0

    def now_ns(self):
        return self.ns


def run(main, threads=1):
    async def with_pool():
        pool = DecodePool(threads, Clock())
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


class Patient:
    """A pool of one patient thread, and the jobs that it is let through one by one; `settled` are those that the loop
    has heard of."""

    def __init__(self):
        self.clock, self.settled = Clock(), []
        self.pool = DecodePool(1, self.clock, patience_ns=100)
        self.may, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.all_settled = asyncio.Event()

    def give(self, *brief):
        for each in brief:
            job = Counted(self.settled, len(brief), self.all_settled)
            job.brief = each
            job.work = self._wait_for_leave
            self.pool.give(job)

    def _wait_for_leave(self):
        self.done.release()  # the one before is done with
        assert self.may.acquire(timeout=10)

    async def heard_when(self, *at_ns):
        """How many the loop has heard of when the job that finishes at each of these times is done with."""
        heard = []
        assert await asyncio.to_thread(self.done.acquire, True, 10)
        for ns in at_ns:
            self.clock.ns = ns
            self.may.release()
            assert await asyncio.to_thread(self.done.acquire, True, 10)
            await asyncio.sleep(0)
            heard.append(len(self.settled))
        return heard


def patient(main):
    async def with_pool():
        of = Patient()
        try:
            async with asyncio.timeout(20):
                await main(of)
        finally:
            of.may.release(10)
            of.pool.close()

    asyncio.run(with_pool())


def test_a_patient_thread_calls_for_what_has_waited_long_enough_and_all_that_came_with_it():
    async def main(of):
        of.give(*[True] * 6)
        assert await of.heard_when(0, 60, 99, 100, 150) == [0, 0, 0, 4, 4]

    patient(main)


def test_a_patient_thread_calls_when_nothing_is_left_to_work_on():
    async def main(of):
        of.give(True, True)
        assert await of.heard_when(0) == [0]
        of.may.release()
        await of.all_settled.wait()

    patient(main)


def test_what_is_finished_does_not_wait_for_a_job_that_may_take_long():
    async def main(of):
        of.give(True, True, False, True, True)
        assert await of.heard_when(0, 0, 0, 0) == [0, 2, 2, 2]

    patient(main)


def test_what_a_patient_thread_has_finished_is_settled_when_the_pool_closes():
    async def main(of):
        of.give(True, True, True)
        assert await of.heard_when(0) == [0]
        of.pool.close()
        assert of.settled == ["dropped"]
        of.may.release()
        await of.all_settled.wait()

    patient(main)


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
    pool = DecodePool(1, Clock())

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

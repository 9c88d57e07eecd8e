"""Batches that are over sooner than a thread is woken for them: which they are, and how they are run on the loop."""

import asyncio
import threading

import numpy as np
import pytest
from test_scheduler import MS, FakeSession, doubled, iterations, outcomes, play, unlucky, work

from accelserve.backends.base import Steady
from accelserve.batching import brevity, lanes
from accelserve.batching.brevity import MOST_NS, Brevity
from accelserve.errors import Kind, ScoringError


class SteadySession(FakeSession):
    """Says that its runs can be foretold, and notes which thread runs it. cpu_ns: what a run takes of it."""

    steady = True

    def __init__(self, answer=None, cpu_ns=1_000):
        super().__init__(answer)
        self.cpu_ns = cpu_ns
        self.on_loop = []

    def run(self, batch):
        self.on_loop.append(threading.current_thread() is threading.main_thread())
        return super().run(batch)


@pytest.fixture(autouse=True)
def played_cpu_time(monkeypatch):
    """Each run takes what its session says."""
    real, now = lanes.Lane.run, threading.local()

    def run(lane, job):
        now.ns, now.next = 0, getattr(lane._runner.session, "cpu_ns", 0)
        real(lane, job)

    def thread_time_ns():
        ns, now.ns = now.ns, now.ns + now.next
        return ns

    monkeypatch.setattr(lanes.Lane, "run", run)
    monkeypatch.setattr(lanes, "thread_time_ns", thread_time_ns)


# -- which are -------------------------------------------------------------------------------------------------


def test_nothing_is_brief_before_it_has_run():
    assert not Brevity().is_brief("a", 1)


def test_other_numbers_of_rows_are_judged_in_proportion_by_powers_of_two():
    brief = Brevity()
    brief.ran("a", 4, MOST_NS // 3)
    assert [rows for rows in range(1, 20) if brief.is_brief("a", rows)] == list(range(1, 9))
    assert not brief.is_brief("b", 1)


def test_a_number_of_rows_that_was_seen_to_take_long_is_believed():
    brief = Brevity()
    brief.ran("a", 1, 1_000)
    brief.ran("a", 8, MOST_NS + 1)
    assert brief.is_brief("a", 4)
    assert not brief.is_brief("a", 5)


def test_one_long_run_among_short_ones_is_the_machines_and_soon_forgotten():
    brief = Brevity()
    for _ in range(3):
        brief.ran("a", 1, 10_000)
    brief.ran("a", 1, 5 * MS)
    assert not brief.is_brief("a", 1)
    brief.ran("a", 1, 10_000)
    assert brief.is_brief("a", 1)


def test_runs_that_become_longer_are_noticed():
    brief = Brevity()
    brief.ran("a", 1, 10_000)
    for _ in range(40):
        brief.ran("a", 1, MOST_NS + 10_000)
    assert not brief.is_brief("a", 1)


def test_clients_who_choose_ever_new_shapes_cost_no_memory():
    brief = Brevity()
    for width in range(1_000):
        brief.ran(("x", width), 1, 1_000)
    assert len(brief._groups) <= brevity._MOST_GROUPS


# -- on the loop -----------------------------------------------------------------------------------------------


def test_a_steady_session_runs_on_the_loop_once_it_was_seen_to_be_brief():
    async def scenario(scheduler, session):
        assert [(await outcomes(scheduler.submit(work(value))))[0] for value in (1, 2, 3)] == [2, 4, 6]
        assert session.on_loop == [False, True, True]

    play(scenario, SteadySession())


@pytest.mark.parametrize("session", [SteadySession(cpu_ns=MOST_NS + 1), FakeSession()], ids=["long", "not steady"])
def test_others_never_do(session):
    async def scenario(scheduler, session):
        for value in range(5):
            answer = scheduler.submit(work(value))
            assert not answer.done()
            assert (await outcomes(answer)) == [2 * value]
        assert not any(getattr(session, "on_loop", ()))

    assert isinstance(FakeSession(), Steady) is False
    play(scenario, session)


def test_a_lone_brief_request_is_answered_within_submit():
    async def scenario(scheduler, session):
        await scheduler.submit(work(1))
        answer = scheduler.submit(work(2))
        assert answer.done()
        assert (await answer).timing.closed == "idle"
        assert (scheduler.inflight, scheduler.queue_rows) == (0, 0)

    play(scenario, SteadySession())


def test_those_that_come_in_one_iteration_ride_together_but_for_the_first_now_and_then():
    async def scenario(scheduler, session):
        await scheduler.submit(work(1))
        await iterations(2)
        for _ in range(5):
            assert await outcomes(*(scheduler.submit(work(value)) for value in (1, 2, 3))) == [2, 4, 6]
            await iterations(2)
        assert session.runs == [(1, 1), (1, 1), (2, 2), (3, 3), (3, 3), (3, 3), (3, 3)]

    play(scenario, SteadySession())


def test_more_than_a_batch_runs_batch_by_batch_with_a_look_round_between():
    async def scenario(scheduler, session):
        await scheduler.submit(work(1))
        session.gate.clear()
        slow = scheduler.submit(work(x=np.ones((1, 3), np.float32)))
        await session.is_running()
        await session.is_running()
        looked = []
        answers = [scheduler.submit(work(value)) for value in range(1, 8)]

        async def look():
            while not answers[-1].done():
                looked.append(sum(answer.done() for answer in answers))
                await asyncio.sleep(0)

        watcher = asyncio.create_task(look())
        session.gate.set()
        await slow
        assert await outcomes(*answers) == [2, 4, 6, 8, 10, 12, 14]
        await watcher
        assert {2, 4, 6} <= set(looked)
        assert session.on_loop == [False, False, True, True, True, True]

    play(scenario, SteadySession(), max_batch_size=2)


def test_who_asks_again_from_within_his_answer_does_not_nest():
    """As a client that sends all its requests at once, down one connection."""

    async def scenario(scheduler, session):
        depths, depth, answered = [], 0, asyncio.Event()
        real = session.answer

        def counted(batch):
            nonlocal depth
            depth += 1
            depths.append(depth)
            try:
                return real(batch)
            finally:
                depth -= 1

        session.answer = counted

        class Asker:
            """What waits for a ticket, as an errand does."""

            left = 3_000

            def resume(self, _=None):
                self.left -= 1
                if self.left <= 0:
                    answered.set()
                else:
                    self.ask()

            def ask(self):
                ticket = scheduler.submit(work(1))
                if ticket.done():
                    asyncio.get_running_loop().call_soon(self.resume)
                else:
                    ticket.wake(self)

        await scheduler.submit(work(1))
        Asker().ask()
        await answered.wait()
        assert max(depths) == 1

    play(scenario, SteadySession(), max_batch_size=1)


def test_only_the_guilty_of_a_brief_batch_fails_and_the_next_is_served():
    session = SteadySession(unlucky(ScoringError(Kind.INVALID, "13")))

    async def scenario(scheduler, session):
        await scheduler.submit(work(1))
        await iterations(2)
        scheduler.submit(work(1))
        found = await outcomes(*(scheduler.submit(work(value)) for value in (1, 13, 3)))
        assert found == [2, Kind.INVALID, 6]
        assert await outcomes(scheduler.submit(work(4))) == [8]

    play(scenario, session)


def test_a_brief_run_that_loses_the_device_ends_the_service():
    session = SteadySession(unlucky(ScoringError(Kind.DEVICE_LOST, "gone")))

    async def scenario(scheduler, session):
        await scheduler.submit(work(1))
        assert await outcomes(scheduler.submit(work(13))) == [Kind.DEVICE_LOST]
        assert (await scheduler.lost()).message == "gone"
        with pytest.raises(ScoringError, match="gone"):
            scheduler.submit(work(1))

    play(scenario, session)


def test_even_a_session_that_exits_costs_its_request_and_not_the_loop():
    def exits(batch):
        if (batch.inputs["x"] == 13).any():
            raise SystemExit
        return doubled(batch)

    async def scenario(scheduler, session):
        await scheduler.submit(work(1))
        assert await outcomes(scheduler.submit(work(13))) == [Kind.INTERNAL]
        assert await outcomes(scheduler.submit(work(2))) == [4]

    play(scenario, SteadySession(exits))


def test_a_delay_of_the_policy_is_kept():
    async def scenario(scheduler, session):
        first = scheduler.submit(work(1))
        await iterations(5)
        assert not first.done()
        second = scheduler.submit(work(2))
        assert await outcomes(first, second) == [2, 4]
        third = scheduler.submit(work(3))
        assert not third.done()
        assert await outcomes(third, scheduler.submit(work(4))) == [6, 8]
        assert session.runs == [(2, 2), (2, 2)]

    play(scenario, SteadySession(), max_batch_size=2, max_queue_delay_ns=MS * 10_000)


def test_requests_of_other_shapes_are_learned_apart():
    async def scenario(scheduler, session):
        await scheduler.submit(work(1))
        wide = work(x=np.ones((1, 3), np.float32))
        assert not scheduler.submit(wide).done()

    play(scenario, SteadySession())


def test_draining_waits_for_nothing_that_ran_on_the_loop():
    async def scenario(scheduler, session):
        await scheduler.submit(work(1))
        await scheduler.submit(work(1))
        assert await scheduler.drain(1)

    play(scenario, SteadySession())

"""The scheduler asks admission, tells it of runs, and drops who waited in vain."""

import pytest
from test_scheduler import MS, FakeClock, behind_a_run, outcomes, play, work

from accelserve.batching.admission import Admission
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Priority

RUN_MS = 20


class TimedSession:
    """Told to a FakeSession: each run takes 20 ms of the fake clock."""

    def __init__(self, clock, session):
        self._clock, self._answer = clock, session.answer

    def __call__(self, batch):
        self._clock.advance(RUN_MS * MS)
        return self._answer(batch)


def play_timed(scenario, **options):
    """scenario(scheduler, session, clock): the model has shown what its runs take, to a request with a deadline."""
    clock = FakeClock()

    async def warmed(scheduler, session):
        session.answer = TimedSession(clock, session)
        for _ in range(4):
            await scheduler.submit(work(1, deadline_ns=clock.ns + 1_000 * MS))
        await scenario(scheduler, session, clock)

    play(warmed, clock=clock, **options)


def refused(scheduler, request):
    with pytest.raises(ScoringError) as caught:
        scheduler.submit(request)
    return caught.value


def test_what_cannot_meet_its_deadline_is_refused_and_never_queued():
    async def scenario(scheduler, session, clock):
        first, (second,) = await behind_a_run(scheduler, session, work(5, deadline_ns=clock.ns + 90 * MS))
        error = refused(scheduler, work(6, deadline_ns=clock.ns + 30 * MS))
        assert (error.kind, error.reason, error.retry_after_s) == (Kind.OVERLOADED, "wait_too_long", 1)
        assert scheduler.queue_rows == 1
        session.gate.set()
        assert await outcomes(first, second) == [0, 10]

    play_timed(scenario)


def test_who_finds_the_server_idle_after_one_cold_run_is_answered():
    clock = FakeClock()

    def cold(batch, answer):
        clock.advance(2_000 * MS)
        return answer(batch)

    async def cold_first(scheduler, session):
        warm, session.answer = session.answer, lambda batch: cold(batch, warm)
        await scheduler.submit(work(1, deadline_ns=clock.ns + 9_000 * MS))
        session.answer = warm
        await scheduler.submit(work(2, deadline_ns=clock.ns + 100 * MS))

    play(cold_first, clock=clock)


def test_a_deadline_shorter_than_a_run_is_refused_on_an_idle_server():
    async def scenario(scheduler, session, clock):
        assert refused(scheduler, work(1, deadline_ns=clock.ns + 15 * MS)).reason == "deadline_too_short"

    play_timed(scenario)


def test_check_refuses_what_submit_would_and_queues_nothing():
    async def scenario(scheduler, session, clock):
        scheduler.check(1, None, Priority.NORMAL)
        scheduler.check(1, clock.ns + 100 * MS, Priority.NORMAL)
        with pytest.raises(ScoringError) as caught:
            scheduler.check(1, clock.ns + 15 * MS, Priority.NORMAL)
        assert caught.value.reason == "deadline_too_short"
        assert scheduler.queue_rows == 0

    play_timed(scenario)


def test_without_deadlines_nobody_is_refused_and_nothing_is_learned():
    clock = FakeClock()

    async def scenario(scheduler, session):
        session.answer = TimedSession(clock, session)
        first, others = await behind_a_run(scheduler, session, *(work(v) for v in range(1, 200)))
        session.gate.set()
        await outcomes(first, *others)
        assert scheduler.learned.sizes == []

    play(scenario, clock=clock, max_batch_size=2)


def test_who_waits_and_can_no_longer_be_answered_in_time_is_dropped_with_the_reason():
    async def scenario(scheduler, session, clock):
        first, (tight, wide) = await behind_a_run(
            scheduler, session, work(5, deadline_ns=clock.ns + 60 * MS), work(6, deadline_ns=clock.ns + 500 * MS)
        )
        clock.advance(30 * MS)  # the run before takes 50 ms in place of 20
        session.gate.set()
        assert await outcomes(first, wide) == [0, 12]
        error = tight.exception()
        assert (error.kind, error.reason) == (Kind.OVERLOADED, "wait_too_long")
        assert "not" in error.message

    play_timed(scenario)


def test_a_failed_batch_teaches_nothing():
    async def scenario(scheduler, session, clock):
        before = scheduler.learned.sizes
        answer = session.answer
        session.answer = lambda batch: clock.advance(500 * MS) or (_ for _ in ()).throw(RuntimeError("broken"))
        assert await outcomes(scheduler.submit(work(1, deadline_ns=clock.ns + 5_000 * MS))) == [Kind.INTERNAL]
        assert scheduler.learned.sizes == before
        session.answer = answer

    play_timed(scenario)


def test_an_objective_bounds_requests_without_deadlines():
    async def scenario(scheduler, session, clock):
        first, _ = await behind_a_run(scheduler, session)
        waiting = scheduler.submit(work(1))
        error = refused(scheduler, work(2, 2, 2))
        assert (error.kind, error.reason) == (Kind.OVERLOADED, "slo")
        session.gate.set()
        assert await outcomes(first, waiting) == [0, 2]

    play_timed(scenario, max_batch_size=2, latency_slo_ns=50 * MS)


def test_a_fault_of_admission_costs_nobody_his_answer(caplog, monkeypatch):
    async def scenario(scheduler, session, clock):
        first, (second,) = await behind_a_run(scheduler, session, work(5, deadline_ns=clock.ns + 900 * MS))
        session.gate.set()
        assert await outcomes(first, second) == [0, 10]

    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Admission, "finished", broken)
    play_timed(scenario)
    assert "learned nothing" in caplog.text

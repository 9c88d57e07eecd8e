"""Which worker runs which request."""

from dataclasses import dataclass

import pytest

from accelserve.entry_script.dispatch import (
    GONE,
    KILL_AFTER_NS,
    RECALL_AFTER_NS,
    SHORT_RUN_NS,
    Dispatch,
)
from accelserve.entry_script.pool_policy import PoolPolicy
from accelserve.errors import Kind, ScoringError

SECOND = 10**9
POLICY = PoolPolicy(workers=2, timeout_ns=5 * SECOND, max_queue=3)


@dataclass(eq=False)
class Request:
    """A job without a waiter."""

    name: str = ""
    arrived_ns: int = 0
    deadline_ns: int | None = None
    expires_ns: int | None = None
    number: int = 0
    began_ns: int = 0
    unwanted: bool = False
    size_bytes: int = 10


def request(name: str = "", at_ns: int = 1, deadline_ns: int | None = None, size_bytes: int = 10) -> Request:
    return Request(name, at_ns, deadline_ns, deadline_ns, size_bytes=size_bytes)


def started(policy: PoolPolicy = POLICY, concurrent: bool = False) -> Dispatch:
    """All workers are there and idle."""
    dispatch = Dispatch(policy)
    for number in range(policy.workers):
        dispatch.starts(number, 0)
        dispatch.started(number, concurrent)
    return dispatch


def in_short_runs(policy: PoolPolicy, run_ns: int = 900_000) -> Dispatch:
    """One whose workers have had nothing but short runs; so long ones are given one request ahead."""
    dispatch = started(policy)
    for _ in range(300):
        jobs = [(job := request(), dispatch.submit(job, 1)) for _ in range(policy.workers)]
        for job, worker in jobs:
            dispatch.answered(worker, job.number, run_ns, 1)
    return dispatch


def answer(dispatch: Dispatch, job: Request, worker: int, at_ns: int, run_ns: int = 10**7) -> None:
    assert dispatch.answered(worker, job.number, run_ns, at_ns) is job


def test_the_worker_that_was_idle_last_runs_next():
    dispatch = started()
    first, second = request(), request()
    workers = [dispatch.submit(first, 1), dispatch.submit(second, 1)]
    assert sorted(workers) == [0, 1]
    answer(dispatch, second, workers[1], 2)
    answer(dispatch, first, workers[0], 3)
    assert dispatch.submit(request(), 4) == workers[0]


def test_nobody_waits_in_front_of_a_worker_while_another_is_idle():
    dispatch = in_short_runs(POLICY)
    assert {dispatch.submit(request(), 1), dispatch.submit(request(), 1)} == {0, 1}


def test_requests_wait_in_order_for_whoever_is_free():
    dispatch = started()
    running = [request(), request()]
    workers = [dispatch.submit(job, 1) for job in running]
    waiting = [request("a"), request("b")]
    assert [dispatch.submit(job, 1) for job in waiting] == [None, None]
    assert dispatch.next_job(1) is None
    answer(dispatch, running[1], workers[1], 2)
    assert dispatch.next_job(2) == (waiting[0], workers[1])
    assert dispatch.next_job(2) is None
    answer(dispatch, waiting[0], workers[1], 3)
    assert dispatch.next_job(3) == (waiting[1], workers[1])


def test_a_busy_worker_gets_one_request_ahead_while_runs_are_short():
    dispatch = in_short_runs(PoolPolicy(workers=1))
    jobs = [request(), request(), request()]
    assert [dispatch.submit(job, 1) for job in jobs] == [0, 0, None]
    assert (jobs[0].began_ns, jobs[1].began_ns) == (1, 0)
    answer(dispatch, jobs[0], 0, 7, run_ns=1000)
    assert jobs[1].began_ns == 7
    assert dispatch.next_job(7) == (jobs[2], 0)


@pytest.mark.parametrize(("run_ns", "ahead"), [(1_900_000, 1), (900_000, 1), (300_000, 3), (20_000, 7)])
def test_a_worker_gets_as_many_ahead_as_it_takes_a_millisecond_for(run_ns, ahead):
    dispatch = in_short_runs(PoolPolicy(workers=1), run_ns)
    assert [dispatch.submit(request(), 1) for _ in range(9)].count(0) == 1 + ahead


def test_one_longer_run_among_the_short_counts_for_a_while():
    dispatch = in_short_runs(PoolPolicy(workers=1), 20_000)
    for run_ns in (400_000, *[20_000] * 32):
        job = request()
        dispatch.submit(job, 1)
        answer(dispatch, job, 0, 1, run_ns=run_ns)
    assert [dispatch.submit(request(), 1) for _ in range(9)].count(0) < 8


def test_after_a_long_run_none_is_given_ahead():
    dispatch = in_short_runs(PoolPolicy(workers=1))
    long = request()
    dispatch.submit(long, 1)
    answer(dispatch, long, 0, 2, run_ns=SHORT_RUN_NS)
    assert [dispatch.submit(request(), 3), dispatch.submit(request(), 3)] == [0, None]


def test_a_run_that_did_not_return_is_judged_by_the_time_it_took():
    dispatch = in_short_runs(PoolPolicy(workers=1))
    job = request()
    dispatch.submit(job, SECOND)
    assert dispatch.answered(0, job.number, None, 2 * SECOND) is job
    assert [dispatch.submit(request(), 3 * SECOND), dispatch.submit(request(), 3 * SECOND)] == [0, None]


def test_an_asynchronous_script_gets_many_at_a_time():
    dispatch = started(PoolPolicy(workers=2), concurrent=True)
    workers = [dispatch.submit(request(), 1) for _ in range(128)]
    assert (workers.count(0), workers.count(1)) == (64, 64)
    assert dispatch.submit(request(), 1) is None


def test_a_full_queue_refuses_with_a_reason_and_a_time():
    dispatch = started()
    for _ in range(5):
        dispatch.submit(request(), 1)
    with pytest.raises(ScoringError) as refused:
        dispatch.submit(request(), 1)
    assert (refused.value.kind, refused.value.reason) == (Kind.OVERLOADED, "queue_full")
    assert refused.value.retry_after_s == 1
    assert dispatch.under_way == 5


def test_bodies_that_wait_are_bounded_together_but_one_may_always():
    dispatch = started(PoolPolicy(workers=1, max_queue_bytes=100))
    running, large = request(), request(size_bytes=500)
    dispatch.submit(running, 1)
    dispatch.submit(large, 1)
    with pytest.raises(ScoringError, match="500 bytes wait for a worker"):
        dispatch.submit(request(size_bytes=1), 1)
    answer(dispatch, running, 0, 2)
    assert dispatch.next_job(2) == (large, 0)
    for _ in range(10):
        dispatch.submit(request(size_bytes=10), 3)
    with pytest.raises(ScoringError, match="100 bytes wait"):
        dispatch.submit(request(size_bytes=1), 3)
    assert len(dispatch.give_up()) == 10
    dispatch.submit(request(size_bytes=60), 4)
    assert dispatch.waiting == 1


def test_most_requests_under_way_may_be_fewer_than_workers_and_queue_take():
    dispatch = started(PoolPolicy(workers=2, max_concurrent=1))
    dispatch.submit(request(), 1)
    with pytest.raises(ScoringError, match="1 requests of the script are under way, and 1 may be"):
        dispatch.submit(request(), 1)


def test_retry_after_grows_with_what_waits():
    dispatch = started(PoolPolicy(workers=1))
    for at in range(200):
        job = request()
        dispatch.submit(job, at)
        answer(dispatch, job, 0, at, run_ns=SECOND)
    for _ in range(11):
        dispatch.submit(request(), 1)
    assert dispatch.retry_after_s() == 10


def test_a_request_waits_no_longer_than_it_may():
    dispatch = started(PoolPolicy(workers=1, max_wait_ns=100))
    dispatch.submit(request(at_ns=1), 1)
    late = request("late", at_ns=1)
    dispatch.submit(late, 1)
    assert dispatch.wake_at_ns() == 101
    assert dispatch.expired(100) == []
    assert dispatch.expired(101) == [late]
    assert (late.number, dispatch.waiting, dispatch.under_way) == (GONE, 0, 1)


def test_a_deadline_before_the_longest_wait_counts():
    dispatch = started(PoolPolicy(workers=1, max_wait_ns=100))
    dispatch.submit(request(), 1)
    early = request(at_ns=1, deadline_ns=50)
    dispatch.submit(early, 1)
    assert dispatch.expired(50) == [early]


def test_what_is_sent_at_once_does_not_expire():
    dispatch = started(PoolPolicy(workers=1, max_wait_ns=100))
    dispatch.submit(request(at_ns=1), 1)
    assert dispatch.expired(1000) == []


def test_a_client_that_leaves_the_queue_makes_room():
    dispatch = started()
    jobs = [request() for _ in range(5)]
    for job in jobs:
        dispatch.submit(job, 1)
    dispatch.withdraw(jobs[3])
    assert (dispatch.waiting, dispatch.under_way) == (2, 4)
    dispatch.submit(request(), 1)


def test_a_client_that_leaves_a_run_leaves_the_worker_busy_until_its_answer():
    dispatch = started(PoolPolicy(workers=1))
    job = request()
    dispatch.submit(job, 1)
    dispatch.withdraw(job)
    assert dispatch.submit(request(), 1) is None
    answer(dispatch, job, 0, 2)
    assert job.unwanted
    assert dispatch.next_job(2) is not None


def test_leaving_after_the_answer_changes_nothing():
    dispatch = started(PoolPolicy(workers=1))
    job = request()
    dispatch.submit(job, 1)
    answer(dispatch, job, 0, 2)
    dispatch.withdraw(job)
    assert dispatch.under_way == 0


def test_of_a_dead_worker_the_request_that_ran_is_lost_and_the_one_ahead_waits_first():
    dispatch = in_short_runs(PoolPolicy(workers=1))
    ran, ahead, behind = request("ran"), request("ahead"), request("behind")
    for job in (ran, ahead, behind):
        dispatch.submit(job, 1)
    (loss,) = dispatch.died(0, 2)
    assert (loss.job, loss.overdue) == (ran, False)
    assert dispatch.next_job(2) is None
    dispatch.starts(0, 3)
    dispatch.started(0, False)
    assert dispatch.next_job(4) == (ahead, 0)
    assert (ahead.began_ns, dispatch.next_job(4)) == (4, None)
    assert dispatch.under_way == 2


def test_nobody_is_told_of_a_loss_that_nobody_waits_for():
    dispatch = in_short_runs(PoolPolicy(workers=1))
    ran, ahead = request(), request()
    for job in (ran, ahead):
        dispatch.submit(job, 1)
        dispatch.withdraw(job)
    assert dispatch.died(0, 2) == []
    assert (dispatch.waiting, dispatch.under_way) == (0, 0)


def test_all_that_an_asynchronous_worker_had_is_lost():
    dispatch = started(PoolPolicy(workers=1), concurrent=True)
    jobs = [request(), request()]
    for job in jobs:
        dispatch.submit(job, 1)
    assert [loss.job for loss in dispatch.died(0, 2)] == jobs


def test_a_worker_is_killed_a_second_after_its_runs_limit():
    dispatch = started(PoolPolicy(workers=2, timeout_ns=5 * SECOND))
    job = request()
    worker = dispatch.submit(job, SECOND)
    limit = 6 * SECOND + KILL_AFTER_NS
    assert (dispatch.wake_at_ns(), dispatch.recall_at_ns()) == (limit, None)
    assert dispatch.to_kill(limit - 1) == []
    assert dispatch.to_kill(limit) == [worker]
    (loss,) = dispatch.died(worker, limit)
    assert loss.overdue


def test_the_time_of_a_request_ahead_runs_from_when_it_begins():
    dispatch = in_short_runs(PoolPolicy(workers=1, timeout_ns=5 * SECOND))
    first, second = request(), request()
    dispatch.submit(first, 0)
    dispatch.submit(second, 0)
    answer(dispatch, first, 0, 4 * SECOND)
    assert dispatch.to_kill(6 * SECOND) == []
    assert dispatch.to_kill(10 * SECOND) == [0]


def test_a_worker_that_does_not_get_ready_is_killed():
    dispatch = Dispatch(PoolPolicy(workers=1, start_limit_ns=7))
    dispatch.starts(0, 10)
    assert list(dispatch.states()) == ["starting"]
    assert dispatch.wake_at_ns() == 17
    assert dispatch.to_kill(17) == [0]


def test_an_answer_that_nobody_asked_for_is_nobodys():
    dispatch = started()
    assert dispatch.answered(0, 99, 1, 1) is None
    assert list(dispatch.states()) == ["idle", "idle"]


def test_what_workers_do_is_told():
    dispatch = started(PoolPolicy(workers=3))
    dispatch.died(0, 1)
    dispatch.submit(request(), 1)
    assert sorted(dispatch.states()) == ["busy", "down", "idle"]


def test_all_that_waits_can_be_let_go():
    dispatch = started(PoolPolicy(workers=1))
    jobs = [request() for _ in range(3)]
    for job in jobs:
        dispatch.submit(job, 1)
    assert dispatch.give_up() == jobs[1:]
    assert (dispatch.waiting, dispatch.under_way) == (0, 1)


def test_behind_a_run_that_becomes_long_nobody_stays_while_another_worker_is_idle():
    dispatch = in_short_runs(PoolPolicy(workers=2), 300_000)
    jobs = [request(str(at)) for at in range(6)]
    workers = [dispatch.submit(job, 1) for job in jobs]
    assert None not in workers
    long = workers[0]
    for job, worker in zip(jobs, workers, strict=True):
        if worker != long:
            answer(dispatch, job, worker, 2, run_ns=1000)
    limit = 1 + RECALL_AFTER_NS
    assert dispatch.recall_at_ns() == limit
    assert (dispatch.to_recall(limit - 1), dispatch.to_recall(limit)) == ([], [long])
    ahead = [job for job, worker in zip(jobs, workers, strict=True) if worker == long and not job.began_ns]
    dispatch.recalled(long, len(ahead))
    assert dispatch.next_job(limit) == (ahead[0], 1 - long)
    assert ahead[0].began_ns == limit
    assert dispatch.to_recall(limit) == []


def test_what_is_recalled_waits_before_all_others_and_no_longer_than_it_may():
    dispatch = in_short_runs(PoolPolicy(workers=1, max_wait_ns=100))
    long, ahead, behind = request(at_ns=1), request(at_ns=1), request(at_ns=50)
    assert [dispatch.submit(job, 1) for job in (long, ahead, behind)] == [0, 0, None]
    dispatch.recalled(0, 1)
    assert (ahead.number, dispatch.waiting, dispatch.under_way) == (0, 2, 3)
    assert dispatch.expired(101) == [ahead]
    answer(dispatch, long, 0, 120, run_ns=60)
    assert dispatch.next_job(120) == (behind, 0)


def test_after_a_recall_a_worker_has_none_ahead_before_it_has_answered_what_came_later():
    dispatch = in_short_runs(PoolPolicy(workers=1), 300_000)
    jobs = [request() for _ in range(5)]
    assert [dispatch.submit(job, 1) for job in jobs] == [0, 0, 0, 0, None]
    dispatch.recalled(0, 2)
    for job in jobs[:2]:
        assert dispatch.next_job(2) is None
        answer(dispatch, job, 0, 2, run_ns=1000)
    assert dispatch.next_job(2) == (jobs[2], 0)
    assert dispatch.next_job(2) is None
    answer(dispatch, jobs[2], 0, 2, run_ns=1000)
    assert [dispatch.next_job(2), dispatch.next_job(2)] == [(jobs[3], 0), (jobs[4], 0)]


def test_a_worker_that_has_not_begun_any_is_idle_when_all_are_recalled():
    dispatch = in_short_runs(PoolPolicy(workers=1))
    jobs = [request(), request()]
    for job in jobs:
        dispatch.submit(job, 1)
    answer(dispatch, jobs[0], 0, 2, run_ns=1000)
    dispatch.recalled(0, 1)
    assert list(dispatch.states()) == ["idle"]
    assert dispatch.next_job(3) == (jobs[1], 0)


def test_what_nobody_waits_for_is_not_run_after_a_recall():
    dispatch = in_short_runs(PoolPolicy(workers=1))
    jobs = [request(), request()]
    for job in jobs:
        dispatch.submit(job, 1)
    dispatch.withdraw(jobs[1])
    dispatch.recalled(0, 1)
    assert (jobs[1].number, dispatch.waiting, dispatch.under_way) == (GONE, 0, 1)


def test_from_an_asynchronous_script_nothing_is_recalled():
    dispatch = started(PoolPolicy(workers=1), concurrent=True)
    for _ in range(3):
        dispatch.submit(request(), 1)
    assert dispatch.to_recall(SECOND) == []

"""The pool of workers, with workers, clock and time held by the test."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from fake_workers import SWAGGER, FakeClock, Workers

from accelserve.entry_script.framing import Frame, FrameKind
from accelserve.entry_script.heads import request_head
from accelserve.entry_script.messages import WorkerSettings
from accelserve.entry_script.pool import WorkerPool
from accelserve.entry_script.pool_policy import PoolPolicy
from accelserve.errors import Kind, ScoringError

SECOND = 10**9
SETTINGS = WorkerSettings("/app/score.py", "/app", score_key="secret-key")


class Pool:
    """A pool and all that it stands on."""

    def __init__(self, policy: PoolPolicy, settings: WorkerSettings = SETTINGS) -> None:
        self.clock = FakeClock()
        self.workers = Workers()
        self.pool = WorkerPool(settings, policy, self.clock, launch=self.workers.launch)

    def submit(self, body: bytes = b"", deadline_ns: int | None = None):
        return self.pool.submit(request_head("POST", "/score", b"", ()), body, "id-1", deadline_ns)

    def passes(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.pool.look()

    def gauge(self, name: str, **labels: str) -> float:
        (value,) = (g.value for g in self.pool.gauges() if g.name == name and g.labels == labels)
        return value


def with_pool(
    workers: int = 1, *, ready: bool = True, settings: WorkerSettings = SETTINGS, **policy: int
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """The test gets a pool that has been entered; its workers are ready, unless told otherwise."""

    def decorate(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        def run(caplog) -> None:
            caplog.set_level(logging.INFO, "accelserve.script")

            async def main() -> None:
                made = Pool(PoolPolicy(workers=workers, **policy), settings)
                async with made.pool:
                    if ready:
                        for worker in list(made.workers.all):
                            worker.ready()
                    await test(made, *([caplog] if test.__code__.co_argcount > 1 else []))

            asyncio.run(main())

        run.__name__ = test.__name__
        return run

    return decorate


async def failure_of(run) -> ScoringError:
    with pytest.raises(ScoringError) as failed:
        await run
    return failed.value


# --- start and end


@with_pool(3, ready=False)
async def test_all_workers_start_together_and_are_told_everything_first(made):
    assert [worker.number for worker in made.workers.all] == [0, 1, 2]
    assert all(b"/app/score.py" in worker.settings.head for worker in made.workers.all)


@with_pool(2, ready=False)
async def test_the_pool_has_started_when_the_last_worker_is_ready(made):
    waiting = asyncio.create_task(made.pool.started())
    made.workers[0].ready()
    await asyncio.sleep(0)
    assert not waiting.done()
    made.workers[1].ready()
    assert (await waiting).shape == "rawhttp"
    assert made.pool.swagger == SWAGGER


@with_pool(1, ready=False)
async def test_a_pool_that_has_not_started_is_not_ready_and_says_why(made):
    assert not made.pool.ready()
    assert made.pool.why_not_ready() == "the entry script is being started"
    made.workers[0].ready()
    assert made.pool.ready()


@with_pool(2, ready=False)
async def test_the_first_worker_that_fails_ends_the_start_with_the_scripts_traceback(made, caplog):
    made.workers[0].ready()
    made.workers[1].failed("init() failed: ValueError: no model", "Traceback ...\n  line 3\nValueError: no model")
    made.workers[1].ends("it ended with exit code 3")
    error = await failure_of(made.pool.started())
    assert error.message == "the entry script /app/score.py does not start: init() failed: ValueError: no model"
    assert error.kind is Kind.PRECONDITION
    assert [record.getMessage() for record in caplog.records][1:] == [
        "Traceback ...",
        "  line 3",
        "ValueError: no model",
    ]
    made.workers[0].ends("it was ended by SIGKILL")
    made.passes(100)
    assert len(made.workers.all) == 2


@with_pool(1, ready=False)
async def test_a_worker_that_dies_silently_in_init_ends_the_start_too(made):
    made.workers[0].ends("it was ended by SIGSEGV")
    assert "does not start: it was ended by SIGSEGV" in (await failure_of(made.pool.started())).message


@with_pool(1, ready=False, start_limit_ns=5 * SECOND)
async def test_a_script_that_hangs_in_init_is_ended(made):
    made.passes(4.9)
    assert not made.workers[0].killed_for
    made.passes(0.2)
    assert made.workers[0].killed_for == "it was not ready after 5 s"


@with_pool(1, ready=False)
async def test_a_worker_that_cannot_be_started_at_all_ends_the_start(made):
    made.workers.refuse = True
    other = Pool(PoolPolicy(workers=1))
    other.workers.refuse = True
    async with other.pool:
        assert "could not be started (Cannot allocate memory)" in (await failure_of(other.pool.started())).message


def test_the_end_closes_workers_and_tells_who_waits():
    async def main() -> None:
        made = Pool(PoolPolicy(workers=1))
        async with made.pool:
            made.workers[0].ready()
            running, waiting = made.submit(), made.submit()
        assert made.workers[0].closed
        assert (await failure_of(waiting)).kind is Kind.DRAINING
        assert (await failure_of(running)).kind is Kind.INTERNAL
        assert len(made.workers.all) == 1

    asyncio.run(main())


# --- requests


@with_pool()
async def test_a_request_is_answered_by_what_the_worker_says(made):
    run = made.submit(b"a body")
    assert made.workers[0].answers(b"an answer").body == b"a body"
    response = await run
    assert (response.status, response.body, response.run_ns) == (200, b"an answer", 10**7)


@with_pool()
async def test_what_waits_is_sent_when_the_worker_has_answered(made):
    runs = [made.submit(bytes([at])) for at in range(3)]
    for at, run in enumerate(runs):
        assert len(made.workers[0].asked) == 1
        assert made.workers[0].answers(b"x").body == bytes([at])
        await run
    assert made.gauge("accelserve_script_waiting") == 0


@with_pool()
async def test_a_client_that_leaves_the_queue_is_never_sent(made):
    first, second, third = (made.submit(bytes([at])) for at in range(3))
    second.cancel()
    made.workers[0].answers()
    await first
    assert made.workers[0].answers().body == b"\2"
    await third


@with_pool()
async def test_the_answer_to_a_client_that_has_gone_is_nobodys(made):
    gone, next_one = made.submit(), made.submit()
    gone.cancel()
    made.workers[0].answers(b"for nobody")
    made.workers[0].answers(b"for the next")
    assert (await next_one).body == b"for the next"


@with_pool()
async def test_a_run_that_fails_is_an_error_of_the_log_with_the_requests_id_also_for_nobody(made, caplog):
    run, gone = made.submit(), made.submit()
    made.workers[0].answers(status=500, failed=True, report="Traceback of it\nValueError: no\n")
    assert (await run).status == 500  # and the other one has been sent
    gone.cancel()
    made.workers[0].answers(status=500, failed=True, report="KeyError: 5\n")
    told = [(record.levelname, record.getMessage(), record.request_id, record.pid) for record in caplog.records]
    pid = made.workers[0].pid
    assert told == [
        ("ERROR", "run() failed: ValueError: no", "id-1", pid),
        ("ERROR", "run() failed: KeyError: 5", "id-1", pid),
    ]
    assert "Traceback of it" in caplog.text


@with_pool(max_wait_ns=2 * SECOND)
async def test_who_waits_too_long_is_refused_with_a_reason(made):
    made.submit()
    waiting = made.submit()
    made.passes(2)
    error = await failure_of(waiting)
    assert (error.kind, error.reason, error.retry_after_s) == (Kind.OVERLOADED, "queue_wait", 1)
    assert error.message == "no worker of the script was free within 2.0 s"


@with_pool()
async def test_a_deadline_that_passes_in_the_queue_is_told_as_one(made):
    made.submit()
    waiting = made.submit(deadline_ns=made.clock.now + SECOND)
    made.passes(1)
    assert (await failure_of(waiting)).kind is Kind.DEADLINE


@with_pool(max_queue=1)
async def test_a_full_queue_refuses(made):
    made.submit()
    made.submit()
    with pytest.raises(ScoringError, match="no more may"):
        made.submit()


# --- time limits, deaths, restarts


@with_pool(timeout_ns=5 * SECOND)
async def test_a_run_that_does_not_end_ends_with_its_worker_and_is_told_the_time(made):
    run, behind = made.submit(), made.submit(b"behind")
    made.passes(5.9)
    assert not made.workers[0].killed_for
    made.passes(0.1)
    assert made.workers[0].killed_for == "run() did not end 1 s after its time limit"
    made.passes(0.1)  # it takes its time to die
    made.workers[0].ends(made.workers[0].killed_for)
    error = await failure_of(run)
    assert (error.kind, error.reason) == (Kind.DEADLINE, "script_timeout")
    assert error.message == "Scoring timeout after 5000 ms"
    made.passes(0)
    made.workers[0].ready()
    assert made.workers[0].answers(b"done").body == b"behind"
    assert (await behind).body == b"done"
    assert made.gauge("accelserve_script_timeouts") == 1
    assert made.gauge("accelserve_script_worker_restarts") == 1


@with_pool(2)
async def test_a_crash_costs_the_request_that_ran_and_no_other(made):
    first, second, third = made.submit(b"1"), made.submit(b"2"), made.submit(b"3")
    guilty = next(worker for worker in made.workers.all if worker.asked[0][1].body == b"1")
    other = made.workers[1 - guilty.number]
    guilty.ends("it was ended by SIGSEGV")
    error = await failure_of(first)
    assert (error.kind, error.reason) == (Kind.INTERNAL, "script_crashed")
    assert "SIGSEGV" in error.message
    for run in (second, third):
        other.answers(b"x")
        assert (await run).status == 200
    assert made.pool.ready()
    assert made.gauge("accelserve_script_crashes") == 1


@with_pool(2, max_wait_ns=SECOND)
async def test_what_was_given_ahead_of_a_long_run_is_run_by_a_worker_that_is_idle(made):
    for _ in range(100):
        runs = [made.submit(), made.submit()]
        for worker in made.workers.all:
            worker.answers(run_ns=900_000)
        await asyncio.gather(*runs)
    runs = [made.submit(b"%d" % at) for at in range(5)]
    long, free = made.workers.all
    assert (len(long.asked), len(free.asked)) == (2, 2)
    for _ in range(3):
        free.answers(run_ns=900_000)
    assert not free.asked
    ahead = long.asked[1][1].body
    made.passes(0.021)
    assert [request.body for _, request in free.asked] == [ahead]
    assert len(long.asked) == 1
    free.answers(b"ok")
    assert (await runs[int(ahead)]).body == b"ok"


@with_pool(max_wait_ns=SECOND)
async def test_the_longest_wait_for_a_worker_holds_for_what_was_given_ahead(made):
    for _ in range(100):
        run = made.submit()
        made.workers[0].answers(run_ns=900_000)
        await run
    _, ahead = made.submit(), made.submit()
    assert len(made.workers[0].asked) == 2
    made.passes(0.021)
    made.passes(1)
    assert (await failure_of(ahead)).reason == "queue_wait"


@with_pool()
async def test_what_was_given_ahead_is_run_by_the_next_worker_with_its_body(made):
    for _ in range(100):
        run = made.submit()
        made.workers[0].answers(run_ns=900_000)
        await run
    first, ahead = made.submit(b"first"), made.submit(b"ahead")
    assert [request.body for _, request in made.workers[0].asked] == [b"first", b"ahead"]
    made.workers[0].ends("it ended with exit code 1")
    await failure_of(first)
    made.passes(0)
    made.workers[0].ready()
    assert made.workers[0].answers(b"ok").body == b"ahead"
    assert (await ahead).body == b"ok"


@with_pool()
async def test_a_script_that_dies_again_and_again_is_not_ready_and_refuses_at_once(made, caplog):
    for _ in range(3):
        made.workers[0].ends("it ended with exit code 9")
        made.passes(5)
        made.workers[0].ready()
    assert not made.pool.ready()
    made.workers[0].ends("it ended with exit code 9")
    why = "the entry script's worker: it ended with exit code 9 (4 times in a row); the next one starts in 4 s"
    assert made.pool.why_not_ready() == why
    with pytest.raises(ScoringError) as refused:
        made.submit()
    assert (refused.value.reason, refused.value.retry_after_s) == ("script_down", 4)
    made.passes(4)
    made.workers[0].ready()
    run = made.submit()
    made.workers[0].answers()
    await run
    made.passes(30)
    assert made.pool.ready()
    assert "a worker of the entry script is gone: it ended with exit code 9" in caplog.text


@with_pool()
async def test_who_waits_when_the_last_hope_dies_is_told_at_once(made):
    for _ in range(2):
        made.workers[0].ends("it ended with exit code 9")
        made.passes(5)
        made.workers[0].ready()
    running, waiting = made.submit(), made.submit()
    made.workers[0].ends("it ended with exit code 9")
    assert (await failure_of(running)).reason == "script_crashed"
    assert (await failure_of(waiting)).reason == "script_down"


@with_pool()
async def test_init_that_fails_at_a_restart_is_tried_again_later(made, caplog):
    made.workers[0].ends("it ended with exit code 9")
    made.passes(0)
    made.workers[0].failed("init() failed: OSError: the disk is gone", "Traceback of it")
    made.workers[0].ends("it ended with exit code 3")
    assert "the disk is gone" in made.pool.why_not_ready()
    assert "Traceback of it" in caplog.text
    made.passes(1)
    made.workers[0].ready()
    assert made.pool.ready()


@with_pool()
async def test_whoever_watches_readiness_is_woken_when_it_may_have_changed(made):
    made.pool.moved.clear()
    made.workers[0].ends("it ended with exit code 9")
    assert made.pool.moved.is_set()


@with_pool()
async def test_looking_again_and_again_wakes_nobody_while_nothing_changes(made):
    made.pool.look()
    made.pool.moved.clear()
    for _ in range(100):
        made.passes(0.02)
    assert not made.pool.moved.is_set()


@with_pool()
async def test_a_script_that_lives_on_after_dying_again_and_again_wakes_them_when_it_counts_as_steady(made):
    for _ in range(3):
        made.workers[0].ends("it ended with exit code 9")
        made.passes(5)
        made.workers[0].ready()
    made.passes(1)
    assert not made.pool.ready()
    made.pool.moved.clear()
    made.passes(29.5)
    assert made.pool.ready()
    assert made.pool.moved.is_set()


# --- workers that say what no worker says


@with_pool()
async def test_an_answer_that_is_none_takes_no_request_off_the_list(made):
    run = made.submit()
    number, _ = made.workers[0].asked[0]
    for head in (b"{", b"[]", b'[200,"text/plain",7,false,""]', b'[200,"text/plain",[],false,7]', b'["a",1,[],0,""]'):
        with pytest.raises(ValueError, match=r"not (the head|header lines)"):
            made.pool.worker_told(0, Frame(FrameKind.RESPONSE, number, head, b"forged"))
    made.workers[0].ends("it sent what is no answer")
    assert (await failure_of(run)).reason == "script_crashed"


@with_pool()
async def test_a_worker_starts_once(made):
    with pytest.raises(ValueError, match="once more"):
        made.workers[0].ready()
    with pytest.raises(ValueError, match="once more"):
        made.workers[0].failed("it does not")
    made.submit()
    second = made.submit()
    assert len(made.workers[0].asked) == 1
    second.cancel()


@with_pool(ready=False, settings=SETTINGS)
async def test_the_key_is_in_no_log_and_no_repr(made, caplog):
    made.workers[0].failed("init() failed")
    made.workers[0].ends("it ended with exit code 3")
    assert "secret-key" not in caplog.text
    assert "secret-key" not in repr(SETTINGS)


@with_pool(2)
async def test_workers_are_told_by_what_they_do(made):
    made.submit()
    made.workers.refuse = True
    states = {
        state: made.gauge("accelserve_script_workers", state=state) for state in ("idle", "busy", "starting", "down")
    }
    assert states == {"idle": 1, "busy": 1, "starting": 0, "down": 0}

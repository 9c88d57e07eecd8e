"""The driver of one model: gathering, running, answering, and everything that can go wrong on the way."""

import asyncio
import gc
import logging
import threading
import weakref

import numpy as np
import pytest

from accelserve.backends.base import BatchResult, Device, Placement
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler, Work
from accelserve.clock import MonotonicClock
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Priority
from accelserve.tensors import BY_NAME, Signature, TensorSpec

MS = 1_000_000
FLOAT = BY_NAME["float32"]
SIGNATURE = Signature(
    "serving_default",
    {"x": TensorSpec("x", FLOAT, (-1, 2), "x")},
    {name: TensorSpec(name, FLOAT, (-1, 2), name) for name in ("y", "z")},
)


class FakeClock:
    def __init__(self):
        self.ns = 1_000 * MS

    def now_ns(self):
        return self.ns

    def advance(self, ns):
        self.ns += ns


class FakeSession:
    """Doubles its input, once its gate is open. answer: what it does instead."""

    signatures = {"serving_default": SIGNATURE}  # noqa: RUF012
    device = Device("cpu:0", DeviceKind.CPU, "fake")
    placement = Placement()

    def __init__(self, answer=None):
        self.answer = answer or doubled
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.runs = []  # (real rows, rows run)

    def run(self, batch):
        self.runs.append((batch.rows, len(batch.inputs["x"]) if batch.inputs["x"].ndim else 1))
        self.entered.release()
        assert self.gate.wait(10)
        return self.answer(batch)

    def close(self):
        pass

    async def is_running(self):
        assert await asyncio.to_thread(self.entered.acquire, timeout=10)


def doubled(batch):
    return BatchResult(dict.fromkeys(batch.outputs, batch.inputs["x"] * 2))


def unlucky(error, value=13):
    """A model that raises `error` when any row is `value`."""

    def answer(batch):
        if (batch.inputs["x"] == value).any():
            raise error
        return doubled(batch)

    return answer


def work(*values, outputs=("y",), batched=True, x=None, **rest):
    tensor = np.array([[value, value] for value in values], np.float32) if x is None else x
    return Work(SIGNATURE, {"x": tensor}, outputs, len(tensor) if batched else 1, batched, **rest)


def play(scenario, session=None, clock=None, **options):
    """Run `scenario(scheduler, session)` in an open scheduler. options: the policy's, and the scheduler's own."""
    session = session or FakeSession()
    own = {name: options.pop(name) for name in ("observer", "max_inflight") if name in options}

    async def main():
        async with Scheduler([session], BatchPolicy(**options), clock or FakeClock(), name="m:1", **own) as scheduler:
            return await asyncio.wait_for(scenario(scheduler, session), 20)

    return asyncio.run(main())


async def outcomes(*futures):
    """The first value of each answer, or the kind of its error."""
    done = await asyncio.gather(*futures, return_exceptions=True)
    return [d.kind if isinstance(d, ScoringError) else d.outputs["y"].ravel()[0].item() for d in done]


async def iterations(count):
    for _ in range(count):
        await asyncio.sleep(0)


async def behind_a_run(scheduler, session, *works):
    """Submit works while the model is busy with a request of value 0; open the gate to let it go on."""
    session.gate.clear()
    first = scheduler.submit(work(0))
    await session.is_running()
    return first, [scheduler.submit(w) for w in works]


# -- gathering -------------------------------------------------------------------------------------------------


def test_a_lone_request_runs_at_once_and_untouched():
    async def scenario(scheduler, session):
        request = work(1, 2)
        session.answer = lambda batch: BatchResult({"y": batch.inputs["x"], "z": batch.inputs["x"]})
        scored = await scheduler.submit(request)
        assert scored.outputs["y"] is request.inputs["x"]
        assert list(scored.outputs) == ["y"]

    play(scenario)


def test_requests_of_one_loop_iteration_ride_together():
    async def scenario(scheduler, session):
        assert await outcomes(*(scheduler.submit(work(v)) for v in (1, 2, 3))) == [2, 4, 6]
        assert session.runs == [(3, 3)]

    play(scenario)


def test_a_batch_that_is_full_leaves_though_more_may_come():
    async def scenario(scheduler, session):
        first, second = scheduler.submit(work(1)), scheduler.submit(work(2))
        assert scheduler.inflight == 1
        assert await outcomes(first, second) == [2, 4]

    play(scenario, max_batch_size=2)


def test_requests_that_keep_coming_hold_up_the_first_for_a_bounded_time():
    clock = FakeClock()

    async def scenario(scheduler, session):
        futures = []
        while not scheduler.inflight and len(futures) < 100:
            futures.append(scheduler.submit(work(1)))
            clock.advance(MS // 10)
            await iterations(1)
        assert len(futures) < 30
        assert await outcomes(*futures) == [2] * len(futures)

    play(scenario, clock=clock, max_batch_size=512)


def test_requests_gather_while_the_model_is_busy():
    async def scenario(scheduler, session):
        first, futures = await behind_a_run(scheduler, session, work(1), work(2, 2), work(3))
        assert (scheduler.queue_rows, scheduler.queue_bytes, scheduler.inflight) == (4, 32, 1)
        session.gate.set()
        assert await outcomes(first, *futures) == [0, 2, 4, 6]
        assert session.runs == [(1, 1), (4, 4)]
        assert (scheduler.queue_rows, scheduler.queue_bytes, scheduler.inflight) == (0, 0, 0)

    play(scenario)


def test_a_batch_is_padded_to_an_allowed_size_with_its_last_row():
    seen = []

    async def scenario(scheduler, session):
        session.answer = lambda batch: seen.append(batch.inputs["x"].tolist()) or doubled(batch)
        assert await outcomes(*(scheduler.submit(work(v)) for v in (1, 2, 3))) == [2, 4, 6]
        assert session.runs == [(3, 4)]
        assert seen == [[[1, 1], [2, 2], [3, 3], [3, 3]]]

    play(scenario, max_batch_size=4, allowed_batch_sizes=(1, 4))


def test_what_differs_in_dtype_or_inner_shape_or_outputs_rides_apart():
    async def scenario(scheduler, session):
        works = [
            work(1),
            work(x=np.ones((1, 2), np.float64)),
            work(x=np.ones((1, 3), np.float32)),
            work(1, outputs=("y", "z")),
            work(1, outputs=("z", "y")),
        ]
        assert await outcomes(*map(scheduler.submit, works)) == [2] * 5
        assert session.runs == [(1, 1), (1, 1), (1, 1), (2, 2)]

    observer = Observer()
    play(scenario, observer=observer)
    assert [rows for rows, _, _ in observer.seen] == [1, 1, 1, 2]  # and none that failed to be stacked


def test_a_model_without_a_batch_axis_runs_requests_one_by_one_and_unpadded():
    async def scenario(scheduler, session):
        scalars = [work(x=np.array(v, np.float32), batched=False) for v in (1, 2)]
        tables = [work(1, 2, 3, batched=False)]
        assert await outcomes(*map(scheduler.submit, scalars + tables)) == [2, 4, 2]
        assert session.runs == [(1, 1), (1, 1), (1, 3)]

    play(scenario, max_batch_size=2, allowed_batch_sizes=(2,))


def test_a_request_without_rows_is_answered():
    async def scenario(scheduler, session):
        scored = await scheduler.submit(work(x=np.empty((0, 2), np.float32)))
        assert scored.outputs["y"].shape == (0, 2)

    play(scenario, allowed_batch_sizes=(4, 32))


def test_the_urgent_go_first():
    async def scenario(scheduler, session):
        low, high = work(1, 1, priority=Priority.LOW), work(2, 2, priority=Priority.HIGH)
        first, futures = await behind_a_run(scheduler, session, low, high)
        order = []
        for future, name in zip(futures, ("low", "high"), strict=True):
            future.add_done_callback(lambda _, name=name: order.append(name))
        session.gate.set()
        await outcomes(first, *futures)
        assert order == ["high", "low"]

    play(scenario, max_batch_size=2)


def test_two_batches_run_at_the_same_time_where_the_session_allows_it():
    meeting = threading.Barrier(2)

    def answer(batch):
        meeting.wait(10)
        return doubled(batch)

    async def scenario(scheduler, session):
        assert await outcomes(scheduler.submit(work(1)), scheduler.submit(work(2))) == [2, 4]

    play(scenario, FakeSession(answer), max_inflight=2, max_batch_size=1)


# -- time ------------------------------------------------------------------------------------------------------


def test_timing_says_where_the_time_went():
    clock = FakeClock()

    def answer(batch):
        clock.advance(5 * MS)
        return BatchResult(doubled(batch).outputs, modelled_device_ns=77)

    async def scenario(scheduler, session):
        first, (second, third) = await behind_a_run(scheduler, session, work(1), work(2, 2))
        clock.advance(3 * MS)
        session.gate.set()
        await first
        for scored in (await second, await third):
            timing = scored.timing
            assert (timing.queue_ns, timing.compute_ns) == (8 * MS, 5 * MS)
            assert (timing.batch_rows, timing.modelled_device_ns) == (3, 77)

    play(scenario, FakeSession(answer), clock)


def test_a_delay_gathers_requests_of_several_iterations():
    clock = FakeClock()

    async def scenario(scheduler, session):
        first = scheduler.submit(work(1))
        await asyncio.sleep(0)
        second = scheduler.submit(work(2))
        clock.advance(1000 * MS - 1)
        scheduler.poke()
        assert scheduler.queue_rows == 2
        clock.advance(1)
        scheduler.poke()
        assert await outcomes(first, second) == [2, 4]
        assert session.runs == [(2, 2)]

    play(scenario, clock=clock, max_queue_delay_ns=1000 * MS)


def test_a_delay_ends_by_itself():
    async def scenario(scheduler, session):
        assert await outcomes(scheduler.submit(work(1))) == [2]

    play(scenario, clock=MonotonicClock(), max_queue_delay_ns=MS)


def test_waiting_requests_share_one_timer():
    async def scenario(scheduler, session):
        loop, timers = asyncio.get_running_loop(), []
        call_later = loop.call_later
        loop.call_later = lambda *args: timers.append(call_later(*args)) or timers[-1]
        futures = [scheduler.submit(work(v, deadline_ns=10**12)) for v in range(20)]
        await iterations(20)
        futures += [scheduler.submit(work(1)) for _ in range(20)]
        await iterations(20)
        assert len(timers) == 1
        for future in futures:
            future.cancel()
        loop.call_later = call_later

    play(scenario, max_batch_size=512, max_queue_delay_ns=10**11)


def test_a_deadline_that_passes_in_the_queue_fails_the_request_unrun():
    clock = FakeClock()

    async def scenario(scheduler, session):
        late = work(1, deadline_ns=clock.ns + 7 * MS)
        first, (second, third) = await behind_a_run(scheduler, session, late, work(2))
        clock.advance(7 * MS)
        scheduler.poke()
        with pytest.raises(ScoringError, match=r"deadline passed in the queue of m:1, 7\.0 ms after") as caught:
            await second
        assert caught.value.kind is Kind.DEADLINE
        session.gate.set()
        assert await outcomes(first, third) == [0, 4]
        assert session.runs == [(1, 1), (1, 1)]

    play(scenario, clock=clock)


def test_a_deadline_is_kept_without_help_while_the_model_is_busy():
    clock = MonotonicClock()

    async def scenario(scheduler, session):
        session.gate.clear()
        first = scheduler.submit(work(0))
        await session.is_running()
        late = scheduler.submit(work(1, deadline_ns=clock.now_ns() + 5 * MS))
        assert await outcomes(late) == [Kind.DEADLINE]
        assert not first.done()
        session.gate.set()
        assert await outcomes(first) == [0]

    play(scenario, clock=clock)


def test_a_deadline_that_passes_during_the_run_is_told_at_its_end():
    clock = FakeClock()

    def answer(batch):
        clock.advance(10 * MS)
        return doubled(batch)

    async def scenario(scheduler, session):
        late = scheduler.submit(work(1, deadline_ns=clock.ns + 10 * MS))
        patient = scheduler.submit(work(2, deadline_ns=clock.ns + 11 * MS))
        assert await outcomes(late, patient) == [Kind.DEADLINE, 4]

    play(scenario, FakeSession(answer), clock)


def test_a_deadline_in_the_past_is_refused_at_once():
    clock = FakeClock()

    async def scenario(scheduler, session):
        with pytest.raises(ScoringError) as caught:
            scheduler.submit(work(1, deadline_ns=clock.ns))
        assert caught.value.kind is Kind.DEADLINE
        assert session.runs == []

    play(scenario, clock=clock)


def test_a_full_queue_refuses_at_once_and_keeps_what_it_has():
    async def scenario(scheduler, session):
        first, futures = await behind_a_run(scheduler, session, work(1), work(2))
        with pytest.raises(ScoringError) as caught:
            scheduler.submit(work(3))
        assert (caught.value.kind, caught.value.reason) == (Kind.OVERLOADED, "queue_full")
        assert caught.value.retry_after_s == 1
        session.gate.set()
        assert await outcomes(first, *futures) == [0, 2, 4]

    play(scenario, max_queue_rows=2)


# -- cancellation ----------------------------------------------------------------------------------------------


def test_cancelling_one_of_three_in_a_running_batch_leaves_its_neighbours_alone():
    async def scenario(scheduler, session):
        session.gate.clear()
        futures = [scheduler.submit(work(v)) for v in (1, 2, 3)]
        await session.is_running()
        futures[1].cancel()
        session.gate.set()
        assert await outcomes(futures[0], futures[2]) == [2, 6]
        assert session.runs == [(3, 3)]

    play(scenario)


def test_a_cancelled_waiter_gives_its_place_in_the_queue_back():
    async def scenario(scheduler, session):
        first, (second, third) = await behind_a_run(scheduler, session, work(1, 1), work(2))
        waiter = asyncio.ensure_future(asyncio.wait_for(second, 10))
        await asyncio.sleep(0)
        waiter.cancel()
        await asyncio.wait([waiter])
        await asyncio.sleep(0)
        assert (scheduler.queue_rows, scheduler.queue_bytes) == (1, 8)
        session.gate.set()
        assert await outcomes(first, third) == [0, 4]
        assert session.runs == [(1, 1), (1, 1)]

    play(scenario)


def test_a_request_cancelled_before_the_batch_leaves_never_runs():
    async def scenario(scheduler, session):
        gone, stays = scheduler.submit(work(1)), scheduler.submit(work(2))
        gone.cancel()
        assert await outcomes(stays) == [4]
        assert session.runs == [(1, 1)]

    play(scenario)


# -- failures --------------------------------------------------------------------------------------------------


def test_only_the_guilty_request_of_a_failed_batch_fails():
    async def scenario(scheduler, session):
        futures = [scheduler.submit(work(v)) for v in (1, 13, 3)]
        assert await outcomes(*futures) == [2, Kind.INVALID, 6]
        assert session.runs == [(3, 3), (1, 1), (1, 1), (1, 1)]

    play(scenario, FakeSession(unlucky(ScoringError(Kind.INVALID, "13 is no good"))))


def test_a_lone_failed_request_is_not_run_again():
    async def scenario(scheduler, session):
        with pytest.raises(ScoringError, match="13 is no good"):
            await scheduler.submit(work(13))
        assert session.runs == [(1, 1)]

    play(scenario, FakeSession(unlucky(ScoringError(Kind.INVALID, "13 is no good"))))


@pytest.mark.parametrize("kind", [Kind.DEVICE_LOST, Kind.DEVICE_MEMORY])
def test_a_failed_device_fails_all_alike_without_a_second_run(kind):
    lost = ScoringError(kind, "gone", reason="fell_off_the_bus", retry_after_s=9)

    async def scenario(scheduler, session):
        futures = [scheduler.submit(work(v)) for v in (1, 13)]
        errors = await asyncio.gather(*futures, return_exceptions=True)
        assert [(e.kind, e.message, e.reason, e.retry_after_s) for e in errors] == [
            (kind, "gone", "fell_off_the_bus", 9)
        ] * 2
        assert errors[0] is not errors[1]
        assert session.runs == [(2, 2)]

    play(scenario, FakeSession(unlucky(lost)))


@pytest.mark.parametrize("error", [RuntimeError("wires crossed"), SystemExit(3)], ids=["exception", "exit"])
def test_a_foreign_exception_is_internal_chained_and_logged_and_the_next_request_is_served(error, caplog):
    async def scenario(scheduler, session):
        with pytest.raises(ScoringError) as caught:
            await scheduler.submit(work(13))
        assert caught.value.kind is Kind.INTERNAL
        assert type(error).__name__ in caught.value.message
        assert caught.value.__cause__ is error
        assert await outcomes(scheduler.submit(work(1))) == [2]

    with caplog.at_level(logging.ERROR, "accelserve.batching"):
        play(scenario, FakeSession(unlucky(error)))
    assert [record.exc_info[1] for record in caplog.records] == [error]


def test_a_rerun_leaves_out_whose_deadline_has_passed():
    clock = FakeClock()

    def answer(batch):
        clock.advance(10 * MS)
        return unlucky(ScoringError(Kind.INVALID, "13 is no good"))(batch)

    async def scenario(scheduler, session):
        late = scheduler.submit(work(1, deadline_ns=clock.ns + 10 * MS))
        others = [scheduler.submit(work(v)) for v in (13, 3)]
        assert await outcomes(late, *others) == [Kind.DEADLINE, Kind.INVALID, 6]
        assert session.runs == [(3, 3), (1, 1), (1, 1)]

    play(scenario, FakeSession(answer), clock)


def test_the_error_of_one_row_fails_the_request_that_owns_it():
    def answer(batch):
        bad = {row: ScoringError(Kind.UNDECODABLE, f"row {row}") for row in (1, 2, 4, 7)}
        return BatchResult(doubled(batch).outputs, bad)

    async def scenario(scheduler, session):
        futures = [scheduler.submit(work(*values)) for values in ([1], [2, 2], [3], [4])]
        with pytest.raises(ScoringError, match="row 1") as caught:
            await futures[1]
        assert caught.value.kind is Kind.UNDECODABLE
        assert await outcomes(futures[0], *futures[2:]) == [2, 6, Kind.UNDECODABLE]
        assert session.runs == [(5, 8)]

    play(scenario, FakeSession(answer), max_batch_size=8, allowed_batch_sizes=(8,))


def summed(batch):
    return BatchResult({"y": batch.inputs["x"].sum(axis=0, keepdims=True)})


def test_outputs_without_the_batchs_rows_make_requests_run_alone():
    async def scenario(scheduler, session):
        assert await outcomes(scheduler.submit(work(1, 2)), scheduler.submit(work(3, 4))) == [3, 7]
        assert session.runs == [(4, 4), (2, 2), (2, 2)]

    play(scenario, FakeSession(summed))


def test_a_scalar_output_is_given_to_a_lone_request_as_it_is():
    async def scenario(scheduler, session):
        scored = await scheduler.submit(work(1, 2))
        assert scored.outputs["y"].shape == ()

    play(scenario, FakeSession(lambda batch: BatchResult({"y": batch.inputs["x"].sum()})))


def test_a_padded_output_without_the_batchs_rows_is_named():
    async def scenario(scheduler, session):
        with pytest.raises(ScoringError, match=r'm:1 output "y": want 4 rows .* got float32\[1,2\]') as caught:
            await scheduler.submit(work(1, 2))
        assert caught.value.kind is Kind.PRECONDITION

    play(scenario, FakeSession(summed), max_batch_size=4, allowed_batch_sizes=(4,))


def test_a_missing_output_is_named():
    async def scenario(scheduler, session):
        with pytest.raises(ScoringError, match='m:1 gave no output "y"') as caught:
            await scheduler.submit(work(1))
        assert caught.value.kind is Kind.INTERNAL

    play(scenario, FakeSession(lambda batch: BatchResult({})))


# -- requests over max_batch_size ------------------------------------------------------------------------------


def test_a_large_request_runs_in_parts_and_is_answered_as_one():
    clock = FakeClock()

    def answer(batch):
        clock.advance(MS)
        return BatchResult(doubled(batch).outputs, modelled_device_ns=5)

    async def scenario(scheduler, session):
        scored = await scheduler.submit(work(*range(10)))
        assert scored.outputs["y"].tolist() == [[2 * v, 2 * v] for v in range(10)]
        assert session.runs == [(4, 4), (4, 4), (2, 2)]
        timing = scored.timing
        assert (timing.queue_ns, timing.compute_ns, timing.batch_rows, timing.modelled_device_ns) == (0, 3 * MS, 4, 15)

    play(scenario, FakeSession(answer), clock, max_batch_size=4)


def test_the_rest_of_a_large_request_rides_with_others():
    async def scenario(scheduler, session):
        large, small = scheduler.submit(work(1, 2, 3)), scheduler.submit(work(9))
        assert (await large).outputs["y"].tolist() == [[2, 2], [4, 4], [6, 6]]
        assert await outcomes(small) == [18]
        assert session.runs == [(2, 2), (2, 2)]

    play(scenario, max_batch_size=2)


def test_the_first_error_fails_a_large_request_and_spares_its_other_parts():
    async def scenario(scheduler, session):
        futures = scheduler.submit(work(13, 1, 2, 3, 4)), scheduler.submit(work(9))
        assert await outcomes(*futures) == [Kind.INVALID, 18]
        assert session.runs == [(2, 2), (1, 1)]

    play(scenario, FakeSession(unlucky(ScoringError(Kind.INVALID, "13 is no good"))), max_batch_size=2)


def test_cancelling_a_large_request_removes_all_its_parts():
    async def scenario(scheduler, session):
        session.gate.clear()
        large = scheduler.submit(work(1, 2, 3, 4, 5))
        await session.is_running()
        assert scheduler.queue_rows == 3
        large.cancel()
        await asyncio.sleep(0)
        assert (scheduler.queue_rows, scheduler.queue_bytes) == (0, 0)
        session.gate.set()
        assert await outcomes(scheduler.submit(work(9))) == [18]
        assert session.runs == [(2, 2), (1, 1)]

    play(scenario, max_batch_size=2)


def test_a_large_request_is_queued_whole_or_not_at_all():
    async def scenario(scheduler, session):
        first, futures = await behind_a_run(scheduler, session, work(1))
        with pytest.raises(ScoringError, match="this request has 3 rows"):
            scheduler.submit(work(1, 2, 3))
        assert scheduler.queue_rows == 1
        session.gate.set()
        assert await outcomes(first, *futures) == [0, 2]

    play(scenario, max_batch_size=2, max_queue_rows=3)


def test_parts_that_cannot_be_joined_name_the_output():
    async def scenario(scheduler, session):
        with pytest.raises(ScoringError, match=r'output "y": want 2 rows as in its part, got float32\[1,2\]') as caught:
            await scheduler.submit(work(1, 2, 3))
        assert caught.value.kind is Kind.PRECONDITION

    play(scenario, FakeSession(summed), max_batch_size=2)


# -- nothing stops the loop ------------------------------------------------------------------------------------


class Observer:
    def __init__(self, error=None):
        self.seen = []
        self.error = error

    def batch_done(self, device, rows, padded_rows, compute_ns):
        self.seen.append((rows, padded_rows, compute_ns))
        if self.error is not None:
            raise self.error


def test_the_observer_hears_of_every_run():
    observer, clock = Observer(), FakeClock()

    def answer(batch):
        clock.advance(2)
        return unlucky(ScoringError(Kind.INVALID, "13 is no good"))(batch)

    async def scenario(scheduler, session):
        await outcomes(*(scheduler.submit(work(v)) for v in (1, 13, 3)))

    play(scenario, FakeSession(answer), clock, observer=observer, max_batch_size=4, allowed_batch_sizes=(2, 4))
    assert observer.seen == [(3, 4, 2), (1, 2, 2), (1, 2, 2), (1, 2, 2)]


def test_a_failing_observer_costs_nobody_an_answer(caplog):
    async def scenario(scheduler, session):
        first, futures = await behind_a_run(scheduler, session, work(1))
        session.gate.set()
        assert await outcomes(first, *futures) == [0, 2]

    play(scenario, observer=Observer(RuntimeError("counter broke")))
    assert [record.exc_info[1].args for record in caplog.records] == [("counter broke",)] * 2


def test_a_session_that_returns_nonsense_does_not_stop_the_model_thread():
    async def scenario(scheduler, session):
        session.answer = lambda batch: None
        assert await outcomes(scheduler.submit(work(1)), scheduler.submit(work(2))) == [Kind.INTERNAL] * 2
        session.answer = doubled
        assert await outcomes(scheduler.submit(work(1))) == [2]

    play(scenario)


# -- memory ----------------------------------------------------------------------------------------------------


def fail_loudly(batch):
    raise RuntimeError("wires crossed")


def fail_politely(batch):
    raise ScoringError(Kind.INVALID, "no")


@pytest.mark.parametrize("answer", [doubled, fail_loudly, fail_politely])
@pytest.mark.parametrize("rows", [1, 5])
def test_a_requests_tensors_are_free_when_it_is_done(answer, rows, caplog):
    caplog.set_level(logging.CRITICAL, "accelserve.batching")  # pytest keeps records, and so their tracebacks

    async def scenario(scheduler, session):
        request = work(*range(rows))
        watch = weakref.ref(request.inputs["x"])
        future = scheduler.submit(request)
        del request
        await asyncio.wait([future])
        await asyncio.sleep(0)
        assert future.done()  # and still held, with its answer or its error
        assert watch() is None
        future.exception()

    gc.disable()
    try:
        play(scenario, FakeSession(answer), max_batch_size=2)
    finally:
        gc.enable()


def test_a_cancelled_requests_tensors_are_free_while_the_model_is_still_busy():
    async def scenario(scheduler, session):
        request = work(1)
        watch = weakref.ref(request.inputs["x"])
        first, (second,) = await behind_a_run(scheduler, session, request)
        del request
        second.cancel()
        await asyncio.sleep(0)
        assert watch() is None
        session.gate.set()
        await first

    gc.disable()
    try:
        play(scenario)
    finally:
        gc.enable()


# -- the end ---------------------------------------------------------------------------------------------------


def test_draining_refuses_the_new_and_finishes_the_accepted():
    async def scenario(scheduler, session):
        first, futures = await behind_a_run(scheduler, session, work(1), work(2))
        drained = asyncio.ensure_future(scheduler.drain(None))
        await asyncio.sleep(0)
        with pytest.raises(ScoringError) as caught:
            scheduler.submit(work(3))
        assert (caught.value.kind, caught.value.retry_after_s) == (Kind.DRAINING, 1)
        assert not drained.done()
        session.gate.set()
        assert await drained
        assert [future.done() for future in (first, *futures)] == [True] * 3
        assert await outcomes(first, *futures) == [0, 2, 4]

    play(scenario)


def test_an_idle_scheduler_is_drained_at_once():
    async def scenario(scheduler, session):
        assert await scheduler.drain(0)

    play(scenario)


def test_what_is_left_when_draining_takes_too_long_fails():
    async def scenario(scheduler, session):
        first, futures = await behind_a_run(scheduler, session, work(1), work(2))
        assert not await scheduler.drain(0.001)
        assert await outcomes(first, *futures) == [Kind.DRAINING] * 3
        assert scheduler.queue_rows == 0
        session.gate.set()

    play(scenario)


def test_leaving_answers_what_was_accepted_and_ends_the_threads():
    async def scenario():
        scheduler = Scheduler([FakeSession()], BatchPolicy(), FakeClock(), max_inflight=2, name="short lived")
        async with scheduler:
            futures = [scheduler.submit(work(v)) for v in (1, 2)]
        assert all(future.done() for future in futures)
        assert await outcomes(*futures) == [2, 4]
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("short lived")]

    asyncio.run(scenario())


def test_whoever_waits_is_told_when_leaving_is_cancelled():
    session = FakeSession()

    async def scenario():
        futures, submitted = [], asyncio.Event()

        async def serve():
            async with Scheduler([session], BatchPolicy(), FakeClock()) as scheduler:
                session.gate.clear()
                futures.append(scheduler.submit(work(1)))
                await session.is_running()
                futures.append(scheduler.submit(work(2)))
                submitted.set()

        serving = asyncio.ensure_future(serve())
        await submitted.wait()
        serving.cancel()
        await asyncio.wait([serving])
        assert await outcomes(*futures) == [Kind.DRAINING] * 2
        session.gate.set()

    asyncio.run(scenario())


def test_a_scheduler_that_is_not_open_takes_nothing():
    with pytest.raises(ScoringError) as caught:
        Scheduler([FakeSession()], BatchPolicy(), FakeClock()).submit(work(1))
    assert caught.value.kind is Kind.DRAINING


def test_a_run_that_outlives_the_loop_ends_its_thread_quietly(caplog):
    session = FakeSession()

    async def scenario():
        async with Scheduler([session], BatchPolicy(), FakeClock(), name="survivor") as scheduler:
            session.gate.clear()
            future = scheduler.submit(work(1))
            await session.is_running()
            await scheduler.drain(0)
            assert await outcomes(future) == [Kind.DRAINING]

    asyncio.run(scenario())
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("survivor")]
    session.gate.set()
    thread.join(10)
    assert not thread.is_alive()
    assert "after the server had stopped" in caplog.text

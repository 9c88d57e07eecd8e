"""Several instances of a model behind one queue: who takes the next batch, and what a lost one costs."""

import asyncio
import logging

import pytest
from test_scheduler import FakeClock, FakeSession, doubled, outcomes, work

from accelserve.backends.base import BatchResult, Device
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError

LOST = ScoringError(Kind.DEVICE_LOST, "m:1: gpu:0 fell off the bus")


class OnGpu(FakeSession):
    """A session on gpu:N, closed by its gate until that is opened."""

    def __init__(self, number, answer=None, is_open=True):
        super().__init__(answer)
        self.device = Device(f"gpu:{number}", DeviceKind.GPU, "fake")
        if not is_open:
            self.gate.clear()


def losing(batch):
    raise LOST


def play(scenario, *sessions, max_inflight=1, observer=None, **policy):
    async def main():
        policies = BatchPolicy(**{"max_batch_size": 1, **policy})
        scheduler = Scheduler(sessions, policies, FakeClock(), name="m:1", max_inflight=max_inflight, observer=observer)
        async with scheduler:
            try:
                return await asyncio.wait_for(scenario(scheduler, *sessions), 20)
            finally:
                for session in sessions:
                    session.gate.set()

    return asyncio.run(main())


def devices(scored):
    return [device.id for device in scored.devices]


def test_a_free_instance_takes_what_a_busy_one_cannot():
    async def scenario(scheduler, first, second):
        slow = scheduler.submit(work(1))
        await first.is_running()
        quick = [await scheduler.submit(work(2)) for _ in range(5)]
        assert [devices(scored) for scored in quick] == [["gpu:1"]] * 5
        first.gate.set()
        assert devices(await slow) == ["gpu:0"]

    play(scenario, OnGpu(0, is_open=False), OnGpu(1))


def test_the_queue_waits_only_when_every_instance_is_busy():
    async def scenario(scheduler, first, second):
        futures = [scheduler.submit(work(value)) for value in (1, 2, 3)]
        await first.is_running()
        await second.is_running()
        assert (scheduler.inflight, scheduler.queue_rows) == (2, 1)
        second.gate.set()
        assert devices(await futures[2]) == ["gpu:1"]
        first.gate.set()
        assert await outcomes(*futures) == [2, 4, 6]

    play(scenario, OnGpu(0, is_open=False), OnGpu(1, is_open=False))


def test_batches_are_spread_before_an_instance_gets_a_second_one():
    async def scenario(scheduler, *sessions):
        futures = [scheduler.submit(work(value)) for value in range(4)]
        for session in sessions:
            await session.is_running()
        assert [instance.running for instance in scheduler.instances] == [1, 1, 1, 1]
        for session in sessions:
            session.gate.set()
        await outcomes(*futures)

    play(scenario, *(OnGpu(number, is_open=False) for number in range(4)), max_inflight=2)


def test_an_idle_instance_goes_before_one_that_could_take_a_second_batch():
    async def scenario(scheduler, first, second):
        slow = scheduler.submit(work(1))
        await first.is_running()
        assert [devices(await scheduler.submit(work(value))) for value in range(4)] == [["gpu:1"]] * 4
        first.gate.set()
        await slow

    play(scenario, OnGpu(0, is_open=False), OnGpu(1), max_inflight=2)


def test_of_equally_free_instances_the_one_that_has_waited_longest_runs():
    async def scenario(scheduler, *sessions):
        return [devices(await scheduler.submit(work(value))) for value in range(6)]

    ran = play(scenario, *(OnGpu(number) for number in range(3)))
    assert ran == [["gpu:0"], ["gpu:1"], ["gpu:2"]] * 2


def test_a_request_that_ran_in_parts_names_every_device_once():
    async def scenario(scheduler, *sessions):
        scored = await scheduler.submit(work(1, 2, 3, 4))
        assert scored.outputs["y"][:, 0].tolist() == [2, 4, 6, 8]
        assert devices(scored) == ["gpu:0", "gpu:1"]

    play(scenario, OnGpu(0), OnGpu(1), max_batch_size=1)


def test_a_batch_is_counted_where_it_ran():
    seen = []

    class Observer:
        def batch_done(self, device, rows, padded_rows, compute_ns):
            seen.append(device)

    async def scenario(scheduler, first, second):
        both = [scheduler.submit(work(value)) for value in range(2)]
        await first.is_running()
        await second.is_running()
        first.gate.set()
        second.gate.set()
        await outcomes(*both, *(scheduler.submit(work(value)) for value in range(4)))
        return {"gpu:0": len(first.runs), "gpu:1": len(second.runs)}

    ran = play(scenario, OnGpu(0, is_open=False), OnGpu(1, is_open=False), observer=Observer())
    assert min(ran.values()) >= 1
    assert {device: seen.count(device) for device in ran} == ran


# --- a lost device


def test_an_instance_that_loses_its_device_leaves_and_the_other_serves_on(caplog):
    async def scenario(scheduler, first, second):
        assert await outcomes(scheduler.submit(work(1))) == [Kind.DEVICE_LOST]
        assert [instance.lost for instance in scheduler.instances] == [True, False]
        assert await outcomes(*(scheduler.submit(work(value)) for value in range(20))) == [2 * v for v in range(20)]
        assert len(first.runs) == 1

    with caplog.at_level(logging.ERROR, "accelserve.batching"):
        play(scenario, OnGpu(0, losing), OnGpu(1))
    assert "m:1 lost an instance on gpu:0, 1 left: m:1: gpu:0 fell off the bus" in caplog.text


def test_a_batch_that_fails_with_its_device_may_be_tried_again_at_once():
    async def scenario(scheduler, first, second):
        with pytest.raises(ScoringError) as caught:
            await scheduler.submit(work(1))
        assert (caught.value.kind, caught.value.reason, caught.value.retry_after_s) == (
            Kind.DEVICE_LOST,
            "device_lost",
            1,
        )

    play(scenario, OnGpu(0, losing), OnGpu(1))


def test_with_the_last_instance_everything_queued_fails_at_once_and_nothing_more_is_taken():
    async def scenario(scheduler, only):
        running, *queued = [scheduler.submit(work(value)) for value in range(4)]
        await only.is_running()
        waiting = asyncio.create_task(scheduler.lost())
        only.gate.set()
        assert await outcomes(running, *queued) == [Kind.DEVICE_LOST] * 4
        assert (await waiting).message == LOST.message
        assert len(only.runs) == 1
        with pytest.raises(ScoringError) as caught:
            scheduler.submit(work(5))
        assert (caught.value.kind, caught.value.retry_after_s) == (Kind.DEVICE_LOST, 5)
        assert await scheduler.drain(1)

    play(scenario, OnGpu(0, losing, is_open=False))


def test_two_batches_that_find_the_same_device_lost_lose_it_once(caplog):
    async def scenario(scheduler, only):
        futures = [scheduler.submit(work(value)) for value in range(2)]
        for _ in futures:
            await only.is_running()
        only.gate.set()
        assert await outcomes(*futures) == [Kind.DEVICE_LOST] * 2

    with caplog.at_level(logging.ERROR, "accelserve.batching"):
        play(scenario, OnGpu(0, losing, is_open=False), max_inflight=2)
    assert caplog.text.count("lost an instance") == 1


def test_memory_that_runs_out_fails_its_batch_and_the_instance_lives_on():
    def full_for_13(batch):
        if (batch.inputs["x"] == 13).any():
            raise ScoringError(Kind.DEVICE_MEMORY, "m:1: gpu:0 is full")
        return doubled(batch)

    async def scenario(scheduler, only):
        with pytest.raises(ScoringError) as caught:
            await scheduler.submit(work(13))
        assert (caught.value.kind, caught.value.kind.http_status, caught.value.retry_after_s) == (
            Kind.DEVICE_MEMORY,
            503,
            1,
        )
        assert await outcomes(scheduler.submit(work(1))) == [2]
        assert [instance.lost for instance in scheduler.instances] == [False]

    play(scenario, OnGpu(0, full_for_13))


def test_a_row_of_another_kind_of_error_costs_no_instance():
    async def scenario(scheduler, only):
        only.answer = lambda batch: BatchResult({}, {})
        assert await outcomes(scheduler.submit(work(1))) == [Kind.INTERNAL]
        only.answer = doubled
        assert await outcomes(scheduler.submit(work(1))) == [2]

    play(scenario, OnGpu(0))

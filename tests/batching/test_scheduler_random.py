"""A scheduler under seeded random traffic: every request ends once, with its own answer, and nothing of it stays."""

import asyncio
import gc
import logging
import random
import threading
import weakref

import numpy as np
import pytest

from accelserve.backends.base import BatchResult, Device, Placement
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler, Work
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.messages import Priority
from accelserve.tensors import BY_NAME, Signature, TensorSpec

MS = 1_000_000
FLOAT = BY_NAME["float32"]
SIGNATURE = Signature(
    "serving_default",
    {"x": TensorSpec("x", FLOAT, (-1, -1), "x")},
    {name: TensorSpec(name, FLOAT, (-1, -1), name) for name in ("y", "z")},
)
MOST_ROWS = 8
QUEUE_ROWS = 120


class FakeClock:
    def __init__(self):
        self.ns = 1_000 * MS

    def now_ns(self):
        return self.ns


class Call:
    """A run that waits, on a model thread, for the test to let it end. numbers: of the requests whose rows it has.

    period: runs that began in the same one may have begun in any order, being on several threads.
    """

    def __init__(self, batch, period):
        self.batch = batch
        self.period = period
        self.numbers = list(dict.fromkeys(batch.inputs["x"][: batch.rows, 0].astype(int).tolist()))
        self.over = threading.Event()
        self.error = None
        self.item_errors = {}


class Hub:
    """What the sessions of all instances have in common: the runs that wait, and what all runs have been."""

    def __init__(self):
        self.waiting = []
        self.all = []
        self.period = 0

    def run(self, batch):
        call = Call(batch, self.period)
        self.all.append(call)
        self.waiting.append(call)
        assert call.over.wait(20)
        if call.error is not None:
            raise call.error
        return BatchResult(dict.fromkeys(batch.outputs, batch.inputs["x"] * 2), call.item_errors)


class RandomSession:
    signatures = {"serving_default": SIGNATURE}  # noqa: RUF012
    placement = Placement()

    def __init__(self, hub, number):
        self.device = Device(f"cpu:{number}", DeviceKind.CPU, "fake")
        self.run = hub.run

    def close(self):
        pass


class Asked:
    """What the test knows of a request. may_be: the kinds of error that it may end with."""

    def __init__(self, number, work):
        self.number = number
        self.rows = work.rows
        self.deadline_ns = work.deadline_ns
        self.lane = (work.outputs, work.inputs["x"].shape[1], work.priority, work.batched)
        self.outputs = work.outputs
        self.watch = weakref.ref(work.inputs["x"])
        self.may_be = set()
        self.cancelled = False
        self.task = None


class Traffic:
    """Random requests, cancellations, moments and ends of runs; each step is followed by what must hold always."""

    def __init__(self, seed, *, instances, max_inflight, delay_ns, losses):
        self.rng = random.Random(seed)
        self.clock = FakeClock()
        self.hub = Hub()
        self.losses = losses
        sizes = self.rng.choice([(), (2, 4, MOST_ROWS)])
        policy = BatchPolicy(MOST_ROWS, sizes, delay_ns, max_queue_rows=QUEUE_ROWS)
        sessions = [RandomSession(self.hub, number) for number in range(instances)]
        self.scheduler = Scheduler(sessions, policy, self.clock, max_inflight=max_inflight, name="m:1")
        self.capacity = instances * max_inflight
        self.requests = []

    # -- steps --

    def ask(self):
        for _ in range(self.rng.choice([1, 1, 2, 5, 12])):
            request = Asked(len(self.requests) + 1, work := self.work(len(self.requests) + 1))
            self.requests.append(request)
            request.task = asyncio.create_task(self.answer(work))

    async def answer(self, work):
        scored = await self.scheduler.submit(work)
        return {name: tensor.copy() for name, tensor in scored.outputs.items()}, scored.timing

    def work(self, number):
        rng = self.rng
        rows = rng.choice([1, 1, 1, 1, 2, 3, MOST_ROWS, 2 * MOST_ROWS + 3])
        batched = rng.random() < 0.93
        x = np.full((rows if batched else 1, rng.choice([2, 2, 2, 3])), number, np.float32)
        outputs = rng.choice([("y",), ("y",), ("y", "z")])
        deadline_ns = self.clock.ns + rng.choice([0, 2, 10, 50]) * MS if rng.random() < 0.3 else None
        return Work(SIGNATURE, {"x": x}, outputs, len(x), batched, deadline_ns, rng.choice(list(Priority)))

    def cancel(self):
        if open_ones := [request for request in self.requests if request.task and not request.task.done()]:
            request = self.rng.choice(open_ones)
            request.cancelled = True
            request.task.cancel()

    def let_time_pass(self):
        self.clock.ns += self.rng.choice([1, MS // 2, MS, 5 * MS])
        self.scheduler.poke()

    def end_a_run(self):
        """The oldest or any other that waits: well, or with one of the many ways to fail."""
        if not self.hub.waiting:
            return
        call = self.hub.waiting.pop(self.rng.randrange(len(self.hub.waiting)))
        asked = [self.requests[number - 1] for number in call.numbers]
        fate = self.rng.choices(["well", "a row", "invalid", "unforeseen", "memory", "lost"], [80, 5, 5, 3, 2, 1])[0]
        if fate == "a row":
            call.item_errors = {0: ScoringError(Kind.INVALID, "a bad row")}
            asked[0].may_be.add(Kind.INVALID)
        elif fate == "invalid":
            self.fail(call, asked, Kind.INVALID)
        elif fate == "unforeseen":
            call.error = ValueError("a broken model")
            for request in asked if len(asked) == 1 else ():
                request.may_be.add(Kind.INTERNAL)
        elif fate == "memory":
            self.fail(call, asked, Kind.DEVICE_MEMORY)
        elif fate == "lost" and self.losses and len([i for i in self.scheduler.instances if not i.lost]) > 1:
            self.fail(call, asked, Kind.DEVICE_LOST)
        call.over.set()

    def fail(self, call, asked, kind):
        call.error = ScoringError(kind, "told to fail")
        if len(asked) == 1 or kind is not Kind.INVALID:  # else each is tried once more by itself
            for request in asked:
                request.may_be.add(kind)

    # -- what must hold --

    async def settle(self):
        """Until every batch that an instance has been given waits in the hub for its end."""
        for _ in range(1_000_000):
            if len(self.hub.waiting) == self.scheduler.inflight:
                break
            await asyncio.sleep(0)
        else:
            raise AssertionError("a batch was given to an instance and did not run, or ran and was not noticed")
        self.hub.period += 1

    def check(self):
        running = [instance.running for instance in self.scheduler.instances]
        assert sum(running) == self.scheduler.inflight <= self.capacity
        assert self.scheduler.queue_rows <= QUEUE_ROWS + 2 * MOST_ROWS + 3  # an empty queue takes anything

    def check_runs(self):
        for call in self.hub.all:
            assert call.batch.rows <= len(call.batch.inputs["x"]) <= MOST_ROWS
            assert len({self.requests[number - 1].lane[:2] for number in call.numbers}) == 1
        assert max(len(call.numbers) for call in self.hub.all) > 3  # they did ride together

    def check_order(self):
        """Who asked first is run first, among equals: nobody is passed over."""
        periods = {}
        for call in self.hub.all:
            for number in call.numbers:
                periods.setdefault(number, call.period)
        lanes = {}
        for number in sorted(periods):
            lanes.setdefault(self.requests[number - 1].lane, []).append(periods[number])
        assert len(lanes) > 6
        for begun in lanes.values():
            assert begun == sorted(begun)

    async def check_end(self, request):
        ended = (await asyncio.gather(request.task, return_exceptions=True))[0]
        if isinstance(ended, asyncio.CancelledError):
            assert request.cancelled
        elif isinstance(ended, ScoringError):
            late = request.deadline_ns is not None and self.clock.ns >= request.deadline_ns
            assert ended.kind in request.may_be | {Kind.OVERLOADED} | ({Kind.DEADLINE} if late else set())
            return ended.kind
        else:
            outputs, timing = ended
            assert sorted(outputs) == sorted(request.outputs)
            for tensor in outputs.values():
                assert tensor.shape == (request.rows, request.lane[1])
                assert (tensor == 2 * request.number).all()
            assert timing.batch_rows <= MOST_ROWS
            return "answered"
        return "cancelled"

    # -- the whole --

    async def play(self, steps):
        async with self.scheduler:
            names = ["ask", "cancel", "let_time_pass", "end_a_run"]
            for _ in range(steps):
                getattr(self, self.rng.choices(names, [30, 8, 15, 70])[0])()
                await asyncio.sleep(0)
                if self.rng.random() < 0.8:  # else the next comes while the loop gathers
                    await self.settle()
                self.check()
            await self.finish()
            self.check_runs()
            self.check_order()
            return [await self.check_end(request) for request in self.requests]

    async def finish(self):
        """Nobody asks any more; each request ends within as many runs as there can be parts."""
        for _ in range(40 * QUEUE_ROWS):
            if all(request.task.done() for request in self.requests):
                break
            await asyncio.sleep(0)
            await self.settle()
            self.let_time_pass()
            self.end_a_run()
        assert all(request.task.done() for request in self.requests)
        await self.settle()
        while self.hub.waiting:  # runs that nobody waits for any more
            self.end_a_run()
            await asyncio.sleep(0)
            await self.settle()
        assert (self.scheduler.queue_rows, self.scheduler.queue_bytes, self.scheduler.inflight) == (0, 0, 0)


KINDS_OF_TRAFFIC = {
    "one instance": {"instances": 1, "max_inflight": 1, "delay_ns": 0, "losses": False},
    "two batches in flight": {"instances": 1, "max_inflight": 2, "delay_ns": 0, "losses": False},
    "a delay": {"instances": 1, "max_inflight": 1, "delay_ns": 3 * MS, "losses": False},
    "three instances, some lost": {"instances": 3, "max_inflight": 1, "delay_ns": 0, "losses": True},
    "all at once": {"instances": 3, "max_inflight": 2, "delay_ns": 2 * MS, "losses": True},
}


@pytest.mark.parametrize("kind", KINDS_OF_TRAFFIC)
@pytest.mark.parametrize("seed", [1, 2])
def test_under_random_traffic_every_request_ends_once_with_its_own_answer(seed, kind, caplog):
    traffic = Traffic(seed, **KINDS_OF_TRAFFIC[kind])
    ends = asyncio.run(traffic.play(400))
    counts = {end: ends.count(end) for end in ends}
    assert counts["answered"] > 100
    assert {"cancelled", Kind.DEADLINE, Kind.INVALID} <= counts.keys()
    assert not [
        record for record in caplog.records if "lost an answer" in record.getMessage() or "was lost" in record.msg
    ]


@pytest.mark.parametrize("kind", KINDS_OF_TRAFFIC)
def test_random_traffic_leaves_nothing_behind(kind, monkeypatch):
    monkeypatch.setattr(logging.getLogger("accelserve.batching"), "disabled", True)  # a kept record has frames
    gc.collect()
    gc.disable()
    try:
        traffic = Traffic(3, **KINDS_OF_TRAFFIC[kind])
        asyncio.run(traffic.play(250))
        for call in traffic.hub.all:  # the test's own
            call.batch = call.error = None
        for request in traffic.requests:
            request.task = None
        assert [request.number for request in traffic.requests if request.watch() is not None] == []
    finally:
        gc.enable()

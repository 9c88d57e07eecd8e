"""A model server in simulated time: the real queue and admission, lanes that take what a curve says, and clients.

Nothing waits, and nothing is random but by a seed.
"""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from accelserve.batching.admission import Admission, Flight
from accelserve.batching.batch_queue import BatchQueue, Pending
from accelserve.batching.policy import BatchPolicy
from accelserve.errors import ScoringError

MS = 1_000_000
S = 1_000_000_000
Curve = Callable[[int], float]  # rows -> ns
MISSED = ("late", "expired", "given up")


def flat(ms: float) -> Curve:
    return lambda rows: ms * MS


def linear(ms: float, ms_per_row: float) -> Curve:
    return lambda rows: (ms + ms_per_row * rows) * MS


def steps(ms: float, rows_per_step: int) -> Curve:
    return lambda rows: ms * MS * -(-rows // rows_per_step)


def noisy(curve: Curve, share: float, seed: int = 1) -> Curve:
    chance = random.Random(seed)
    return lambda rows: curve(rows) * max(0.3, chance.gauss(1.0, share))


def poisson(per_s: float, until_ns: int, seed: int = 2) -> Iterator[int]:
    chance, now = random.Random(seed), 0.0
    while (now := now + chance.expovariate(per_s) * S) < until_ns:
        yield int(now)


class Arrival(Pending):
    """A request and how it ended: "answered", a reason of refusal, or one of MISSED. wanted_ns: in time until then."""

    __slots__ = ("ended", "ended_ns", "wanted_ns")

    def __init__(self, at_ns: int, deadline_ns: int | None, wanted_ns: int) -> None:
        super().__init__("group", 1, 0, at_ns, deadline_ns)
        self.wanted_ns = wanted_ns
        self.ended = ""
        self.ended_ns = 0


@dataclass
class Simulation:
    """Runs arrivals through queue, admission and lanes, and counts how they ended. refuses: with admission."""

    policy: BatchPolicy
    curve: Curve
    lanes: int = 1
    refuses: bool = True
    arrivals: list[Arrival] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queue: BatchQueue[Arrival] = BatchQueue(self.policy)
        self.admission = Admission(self.policy, self.lanes)
        self.running = 0
        self.again: Callable[[int], None] = lambda now: None  # a client has its answer
        self.events: list[tuple[int, int, Callable[[int], None]]] = []
        self.number = 0

    def at(self, when_ns: int, event: Callable[[int], None]) -> None:
        self.number += 1
        heapq.heappush(self.events, (when_ns, self.number, event))

    def run(self, times: Iterator[int], deadline_ms: float | None = None) -> None:
        """Open loop: a request at each time, whatever became of the others."""
        for at_ns in times:
            self.at(at_ns, lambda now: self.submit(now, deadline_ms))
        self.go_on()

    def run_clients(self, count: int, think_ns: int, until_ns: int) -> None:
        """Closed loop: each asks again a moment after its answer, or 10 ms after a refusal."""
        chance = random.Random(5)
        self.again = lambda now: (
            self.at(now + int(think_ns * chance.uniform(0.5, 1.5)), self.submit) if now < until_ns else None
        )
        for _ in range(count):
            self.again(0)
        self.go_on()

    def go_on(self) -> None:
        while self.events:
            now, _, event = heapq.heappop(self.events)
            event(now)

    def submit(self, now: int, deadline_ms: float | None = None) -> None:
        deadline_ns = None if deadline_ms is None else now + int(deadline_ms * MS)
        objective_ns = self.policy.latency_slo_ns or (1 << 62)
        arrival = Arrival(now, deadline_ns, now + objective_ns if deadline_ns is None else deadline_ns)
        self.arrivals.append(arrival)
        try:
            if self.refuses:
                ahead = self.queue.rows_ahead(arrival.priority)
                self.admission.check(arrival.rows, ahead, self.queue.expires_at_ns(), deadline_ns, now)
            self.queue.add(arrival)
        except ScoringError as error:
            arrival.ended, arrival.ended_ns = error.reason, now
            self.at(now + 10 * MS, self.again)
            return
        self.poke(now)

    def poke(self, now: int) -> None:
        if self.running == self.lanes:
            return
        self.drop(self.queue.expire(now), "expired", now)
        self.drop(self.queue.hopeless(now), "given up", now)
        if (hold_ns := self.admission.hold_until_ns(self.queue.rows, self.queue.expires_at_ns(), now)) is not None:
            self.at(hold_ns, self.poke)
            return
        while self.running < self.lanes and (taken := self.queue.take(now)):
            self.running += 1
            flight = self.admission.started(taken.rows, self.queue.rows, now)
            end = now + int(self.curve(self.policy.padded_rows(taken.rows)))
            self.at(end, lambda then, items=taken.items, flight=flight: self.finish(items, flight, then))
        if self.running < self.lanes and (wake_ns := self.queue.wake_at_ns()) is not None:
            self.at(max(wake_ns, now + 1), self.poke)

    def drop(self, items: list[Arrival], how: str, now: int) -> None:
        for item in items:
            item.ended, item.ended_ns = how, now
            self.admission.missed(item.arrived_ns, now)
            self.again(now)

    def finish(self, items: list[Arrival], flight: Flight, now: int) -> None:
        self.running -= 1
        for item in items:
            item.ended, item.ended_ns = ("answered" if now <= item.wanted_ns else "late"), now
            self.admission.answered(flight, item.arrived_ns, item.deadline_ns, now)
            self.again(now)
        self.admission.finished(flight, self.policy.padded_rows(len(items)), self.queue.rows, now)
        if self.refuses:
            self.queue.run_ns, self.queue.worthwhile = self.admission.latency.run_ns, self.admission.latency.worthwhile
            self.queue.most_rows = self.admission.most_rows
        self.poke(now)

    # -- what came of it ----------------------------------------------------------------------------------------

    def count(self, *ends: str, since_ns: int = 0) -> int:
        return sum(item.ended in ends and item.arrived_ns >= since_ns for item in self.arrivals)

    def goodput_per_s(self, since_ns: int, until_ns: int) -> float:
        good = sum(item.ended == "answered" and since_ns <= item.ended_ns < until_ns for item in self.arrivals)
        return good / (until_ns - since_ns) * S


def capacity_per_s(policy: BatchPolicy, curve: Curve, lanes: int = 1) -> float:
    """With full batches and nothing to wait for."""
    return lanes * policy.max_batch_size / curve(policy.max_batch_size) * S

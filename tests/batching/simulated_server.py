"""A model server in simulated time: arrivals, one queue, lanes that take what a curve says. Nothing waits, nothing is
random but by a seed."""

import heapq
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from accelserve.batching.admission import Admission, Ticket
from accelserve.batching.policy import BatchPolicy
from accelserve.errors import ScoringError

MS = 1_000_000
S = 1_000_000_000
Curve = Callable[[int], float]  # rows -> ns


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


@dataclass
class Arrival:
    at_ns: int
    deadline_ns: int
    rows: int = 1
    ended: str = ""
    ended_ns: int = 0


@dataclass
class Simulation:
    """Runs arrivals through admission, and counts how they ended."""

    policy: BatchPolicy
    curve: Curve
    lanes: int = 1
    refuses: bool = True
    arrivals: list[Arrival] = field(default_factory=list)
    waiting: list[Arrival] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.admission = Admission(self.policy, self.lanes)
        self.running = 0
        self.rows = 0
        self.events: list[tuple[int, int, Callable[[int], None]]] = []
        self.number = 0

    def at(self, when_ns: int, event: Callable[[int], None]) -> None:
        self.number += 1
        heapq.heappush(self.events, (when_ns, self.number, event))

    def run(self, arrivals: list[Arrival]) -> None:
        self.arrivals += arrivals
        for arrival in arrivals:
            self.at(arrival.at_ns, lambda now, arrival=arrival: self.submit(arrival, now))
        while self.events:
            now, _, event = heapq.heappop(self.events)
            event(now)

    def submit(self, arrival: Arrival, now: int) -> None:
        try:
            if self.refuses:
                first = self.waiting[0].deadline_ns if self.waiting else None
                self.admission.check(arrival.rows, self.rows, first, arrival.deadline_ns, now)
        except ScoringError as error:
            arrival.ended, arrival.ended_ns = error.reason, now
            return
        self.waiting.append(arrival)
        self.rows += arrival.rows
        self.poke(now)

    def poke(self, now: int) -> None:
        while self.running < self.lanes and (batch := self.take(now)):
            self.running += 1
            rows = sum(item.rows for item in batch)
            ticket = self.admission.started(rows, self.rows, now)
            end = now + int(self.curve(self.policy.padded_rows(rows)))
            self.at(end, lambda then, batch=batch, ticket=ticket, now=now: self.finish(batch, ticket, now, then))

    def take(self, now: int) -> list[Arrival]:
        run_ns = self.admission.latency.run_ns
        dropped = 0
        while dropped < len(self.waiting):
            item = self.waiting[dropped]
            lead = self.admission.lead_ns(self.rows) if self.refuses else 0
            if item.deadline_ns >= now + lead:
                break
            item.ended, item.ended_ns = ("expired" if item.deadline_ns < now else "wait_too_long after all"), now
            self.rows -= item.rows
            dropped += 1
        if dropped:
            self.admission.missed(self.waiting[dropped - 1].at_ns, now)
            del self.waiting[:dropped]
        batch: list[Arrival] = []
        rows, deadline = 0, 1 << 62
        for item in self.waiting:
            rows, deadline = rows + item.rows, min(deadline, item.deadline_ns)
            late = self.refuses and bool(run_ns) and now + run_ns[min(rows, len(run_ns) - 1)] > deadline
            if batch and (rows > self.policy.max_batch_size or late):
                break
            batch.append(item)
        del self.waiting[: len(batch)]
        self.rows -= sum(item.rows for item in batch)
        return batch

    def finish(self, batch: list[Arrival], ticket: Ticket, started: int, now: int) -> None:
        self.running -= 1
        for item in batch:
            item.ended, item.ended_ns = ("answered" if now <= item.deadline_ns else "late"), now
            if item.ended == "late" and started > item.at_ns:
                self.admission.missed(item.at_ns, now)
        rows = sum(item.rows for item in batch)
        self.admission.finished(ticket, self.policy.padded_rows(rows), now)
        self.poke(now)

    # -- what came of it ----------------------------------------------------------------------------------------

    def count(self, *ends: str, since_ns: int = 0) -> int:
        return sum(item.rows for item in self.arrivals if item.ended in ends and item.at_ns >= since_ns)

    def goodput_per_s(self, since_ns: int, until_ns: int) -> float:
        good = [item for item in self.arrivals if item.ended == "answered" and since_ns <= item.ended_ns < until_ns]
        return sum(item.rows for item in good) / (until_ns - since_ns) * S


def capacity_per_s(policy: BatchPolicy, curve: Curve, lanes: int = 1) -> float:
    """With full batches and nothing to wait for."""
    return lanes * policy.max_batch_size / curve(policy.max_batch_size) * S


def overload(times: float, capacity: float, seconds: float, deadline_ms: float, seed: int = 2) -> list[Arrival]:
    until = int(seconds * S)
    return [Arrival(at, at + int(deadline_ms * MS)) for at in poisson(times * capacity, until, seed)]

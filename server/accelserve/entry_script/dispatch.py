"""Which worker runs which request: decided without processes, sockets or a clock.

The idle worker that was idle last runs next, because its memory is warm. Nobody is put in front of a worker while
another one is idle. A busy worker is given requests ahead only while runs are so short that the way of its answers to
the event loop and back would be most of what it does: as many as it takes a millisecond for, by its longest run in a
while. When the run in front of them takes RECALL_AFTER_NS all the same, they are recalled and wait with all others,
before them, for whichever worker is free, and no longer than their wait for a worker may be.
"""

from collections import deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from accelserve.entry_script.pool_policy import PoolPolicy
from accelserve.errors import Kind, ScoringError

KILL_AFTER_NS = 10**9  # a run over its limit is interrupted by its worker; one that is not is killed so much later
SHORT_RUN_NS = 2_000_000
RECALL_AFTER_NS = 20_000_000  # less may be a process that was not given a core
_SHORT_RUNS = 64  # so many in a row make one a good guess for the next
_AHEAD_NS = 1_000_000
_MOST_AHEAD = 7
_MOST_CONCURRENT = 64  # requests that an asynchronous run() gets at a time
_MOST_IDS = 2**32


class Job(Protocol):
    """One request. Only its maker sets the first four, only `Dispatch` the others.

    deadline_ns: the client's own. expires_ns: when it need not begin any more, for that or for the wait for a worker.
    number: 0 while it waits, above that while a worker has it, GONE after that. began_ns: when it began to run, as far
    as the event loop can tell; 0 before. unwanted: nobody waits for its answer.
    """

    arrived_ns: int
    size_bytes: int
    deadline_ns: int | None
    expires_ns: int | None
    number: int
    began_ns: int
    unwanted: bool


GONE = -1
AnyJob = TypeVar("AnyJob", bound=Job)


class Loss(NamedTuple, Generic[AnyJob]):
    """A request that was running when its worker died. overdue: for which it was killed."""

    job: AnyJob
    overdue: bool


class _Slot(Generic[AnyJob]):
    """A worker's place. running: the jobs that it has been given, in order, by number.

    resumes_with: after a recall none is given ahead before this one, given later, is answered: by then the worker has
    passed over the recalled ones, so that it takes no permission for theirs. None without a recall, 0 before it is
    given.
    """

    __slots__ = (
        "concurrent",
        "longest_ns",
        "most",
        "number",
        "ready",
        "resumes_with",
        "running",
        "short_runs",
        "started_ns",
    )

    def __init__(self, number: int) -> None:
        self.number = number
        self.ready = self.concurrent = False
        self.started_ns: int | None = None  # of one that is not ready yet
        self.short_runs = 0
        self.longest_ns = 0  # of them
        self.most = 1  # jobs that it may have
        self.resumes_with: int | None = None
        self.running: dict[int, AnyJob] = {}

    @property
    def has_room(self) -> bool:
        return self.ready and len(self.running) < self.most and self.resumes_with is None

    def ran(self, took_ns: int) -> None:
        """Learn from a run what may be given ahead."""
        if self.concurrent:
            return
        if took_ns >= SHORT_RUN_NS:
            self.short_runs, self.longest_ns, self.most = 0, 0, 1
            return
        self.short_runs += 1
        self.longest_ns = max(self.longest_ns, took_ns)
        if self.short_runs >= _SHORT_RUNS:
            self.most = 1 + max(1, min(_MOST_AHEAD, _AHEAD_NS // max(1, self.longest_ns)))
            self.short_runs, self.longest_ns = self.short_runs // 2, self.longest_ns // 2  # what was long ago fades


class Dispatch(Generic[AnyJob]):
    """Belongs to one pool; every method that needs the time is told it.

    After whatever makes room (`answered`, `started`, `recalled`), ask `next_job` until it has none.
    """

    def __init__(self, policy: PoolPolicy) -> None:
        self._policy = policy
        self._slots = [_Slot[AnyJob](number) for number in range(policy.workers)]
        self._idle: list[_Slot[AnyJob]] = []
        self._waiting: deque[AnyJob] = deque()
        self._waiting_bytes = 0
        self._under_way = 0
        self._most = policy.max_concurrent or _MOST_IDS
        self._last_number = 0
        self._run_ns = 0.0  # what a run takes, smoothed

    # -- requests

    def submit(self, job: AnyJob, now_ns: int) -> int | None:
        """The worker to send it to, None when it waits. Raises ScoringError(OVERLOADED) when there is no room."""
        if self._under_way >= self._most:
            raise self._full(f"{self._under_way} requests of the script are under way, and {self._most} may be")
        if (wait_ns := self._policy.max_wait_ns) is not None:
            latest = job.arrived_ns + wait_ns
            job.expires_ns = latest if job.expires_ns is None else min(latest, job.expires_ns)
        if not self._waiting and (slot := self._free_slot()) is not None:
            self._give(job, slot, now_ns)
            self._under_way += 1
            return slot.number
        if len(self._waiting) >= self._policy.max_queue:
            raise self._full(f"{len(self._waiting)} requests wait for a worker of the script, and no more may")
        if self._waiting and self._waiting_bytes + job.size_bytes > self._policy.max_queue_bytes:
            raise self._full(f"{self._waiting_bytes} bytes wait for a worker of the script, and no more may")
        self._waiting.append(job)
        self._waiting_bytes += job.size_bytes
        self._under_way += 1
        return None

    def next_job(self, now_ns: int) -> tuple[AnyJob, int] | None:
        """The longest waiting request and the worker that has room for it."""
        if not self._waiting:
            return None
        slot = self._free_slot()
        if slot is None:
            return None
        job = self._waiting.popleft()
        self._waiting_bytes -= job.size_bytes
        self._give(job, slot, now_ns)
        return job, slot.number

    def withdraw(self, job: AnyJob) -> None:
        """Nobody waits for it any more. One that a worker has been given is run all the same."""
        job.unwanted = True
        if not job.number:
            self._waiting.remove(job)
            self._waiting_bytes -= job.size_bytes
            self._leave(job)

    def expired(self, now_ns: int) -> list[AnyJob]:
        """Those that have waited too long. They wait no more."""
        late = [job for job in self._waiting if job.expires_ns is not None and job.expires_ns <= now_ns]
        for job in late:
            self._waiting.remove(job)
            self._waiting_bytes -= job.size_bytes
            self._leave(job)
        return late

    def give_up(self) -> list[AnyJob]:
        """All that wait; they wait no more."""
        left, self._waiting, self._waiting_bytes = list(self._waiting), deque(), 0
        for job in left:
            self._leave(job)
        return left

    def retry_after_s(self) -> int:
        """When trying again may help, from what waits and what runs have taken."""
        return max(1, round(len(self._waiting) * self._run_ns / len(self._slots) / 1e9))

    # -- workers

    def starts(self, number: int, now_ns: int) -> None:
        self._slots[number].started_ns = now_ns

    def is_starting(self, number: int) -> bool:
        return self._slots[number].started_ns is not None

    def started(self, number: int, concurrent: bool) -> None:
        """It has told that it is ready."""
        slot = self._slots[number]
        slot.ready, slot.concurrent, slot.started_ns = True, concurrent, None
        slot.short_runs, slot.longest_ns, slot.most = 0, 0, _MOST_CONCURRENT if concurrent else 1
        slot.resumes_with = None
        self._idle.append(slot)

    def answered(self, number: int, job_number: int, run_ns: int | None, now_ns: int) -> AnyJob | None:
        """The job that is answered; None for one that was never given."""
        slot = self._slots[number]
        job = slot.running.pop(job_number, None)
        if job is None:
            return None
        self._leave(job)
        if job_number == slot.resumes_with:
            slot.resumes_with = None
        took_ns = now_ns - job.began_ns if run_ns is None else run_ns
        slot.ran(took_ns)
        self._run_ns += (took_ns - self._run_ns) / 16
        if not slot.running:
            self._idle.append(slot)
        elif not slot.concurrent:
            next(iter(slot.running.values())).began_ns = now_ns
        return job

    def to_recall(self, now_ns: int) -> list[int]:
        """Workers whose run takes so long that what they have ahead is better off elsewhere."""
        return [slot.number for slot in self._slots if (at := _recall_at(slot)) is not None and at <= now_ns]

    def given(self, number: int) -> int:
        """How many requests it has been given and has not answered."""
        return len(self._slots[number].running)

    def recalled(self, number: int, count: int) -> None:
        """So many of its requests, the last ones, it will not begin. They wait again, before all others."""
        slot = self._slots[number]
        if count:
            slot.resumes_with = 0
        for _ in range(count):
            _, job = slot.running.popitem()
            self._wait_first(job)
        if count and not slot.running:
            self._idle.append(slot)

    def died(self, number: int, now_ns: int) -> list[Loss[AnyJob]]:
        """What is lost with it. What it had been given ahead waits again, before all others."""
        slot = self._slots[number]
        jobs, slot.running = list(slot.running.values()), {}
        slot.ready, slot.started_ns = False, None
        if slot in self._idle:
            self._idle.remove(slot)
        lost = [job for job in jobs if job.began_ns]
        for job in reversed(jobs):
            if job.began_ns:
                self._leave(job)
            else:
                self._wait_first(job)
        return [Loss(job, self._limit_of(job) <= now_ns) for job in lost if not job.unwanted]

    def to_kill(self, now_ns: int) -> list[int]:
        """Workers whose run, or start, takes too long."""
        return [slot.number for slot in self._slots if (at := self._latest(slot)) is not None and at <= now_ns]

    def wake_at_ns(self) -> int | None:
        """When `expired` or `to_kill` has something next, if nothing else happens."""
        moments = [job.expires_ns for job in self._waiting if job.expires_ns is not None]
        moments += [at for slot in self._slots if (at := self._latest(slot)) is not None]
        return min(moments, default=None)

    def recall_at_ns(self) -> int | None:
        """When `to_recall` has something next; None while nothing is ahead."""
        return min([at for slot in self._slots if (at := _recall_at(slot)) is not None], default=None)

    @property
    def limit_ns(self) -> int:
        """From the begin of a run to its worker's end."""
        return self._policy.timeout_ns + KILL_AFTER_NS

    # -- what metrics tell

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def under_way(self) -> int:
        """Requests that run or wait."""
        return self._under_way

    def states(self) -> Iterator[str]:
        """Of each worker: "busy", "idle", "starting" or "down"."""
        for slot in self._slots:
            if slot.ready:
                yield "busy" if slot.running else "idle"
            else:
                yield "down" if slot.started_ns is None else "starting"

    # -- parts

    def _free_slot(self) -> _Slot[AnyJob] | None:
        """The worker that is to run the next request. One that is idle leaves the list of the idle."""
        if self._idle:
            return self._idle.pop()
        roomy = [slot for slot in self._slots if slot.has_room]
        return min(roomy, key=lambda slot: len(slot.running), default=None)

    def _give(self, job: AnyJob, slot: _Slot[AnyJob], now_ns: int) -> None:
        self._last_number = job.number = self._last_number % (_MOST_IDS - 1) + 1
        if slot.concurrent or not slot.running:
            job.began_ns = now_ns
            if slot.resumes_with == 0:
                slot.resumes_with = job.number
        slot.running[job.number] = job

    def _wait_first(self, job: AnyJob) -> None:
        """What a worker had and does not run."""
        if job.unwanted:
            self._leave(job)
            return
        job.number = job.began_ns = 0
        self._waiting.appendleft(job)
        self._waiting_bytes += job.size_bytes

    def _leave(self, job: AnyJob) -> None:
        job.number = GONE
        self._under_way -= 1

    def _full(self, message: str) -> ScoringError:
        return ScoringError(Kind.OVERLOADED, message, reason="queue_full", retry_after_s=self.retry_after_s())

    def _limit_of(self, job: AnyJob) -> int:
        return job.began_ns + self.limit_ns

    def _latest(self, slot: _Slot[AnyJob]) -> int | None:
        """When the worker has to be killed."""
        if slot.started_ns is not None:
            return slot.started_ns + self._policy.start_limit_ns
        if not slot.running:
            return None
        return min([self._limit_of(job) for job in slot.running.values() if job.began_ns], default=None)


def _recall_at(slot: _Slot[AnyJob]) -> int | None:
    """When what the worker has ahead is to be recalled; None when it has nothing."""
    if slot.concurrent or len(slot.running) < 2:
        return None
    return next(iter(slot.running.values())).began_ns + RECALL_AFTER_NS

"""How fast something runs in this process: one thread for each callable, round by round."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

WARM_UP_RUNS = 3  # the first finds algorithms and makes buffers, the second may capture a graph
Run = Callable[[], object]


def rates(make: Sequence[Callable[[], Run]], rows: int, seconds: float, rounds: int) -> dict[str, Any]:
    """Images per second of all threads together and the time of one run, of the fastest round; every round.

    make: for each thread what it runs, made and warmed up there: a captured graph belongs to its thread.
    """
    every = [_round(make, rows, seconds) for _ in range(rounds)]
    return {**max(every, key=lambda one: one["images_s"]), "rounds": every}


def _round(make: Sequence[Callable[[], Run]], rows: int, seconds: float) -> dict[str, float]:
    barrier = threading.Barrier(len(make))

    def work(made: Callable[[], Run]) -> list[float]:
        """Seconds of each run."""
        try:
            run = made()
            for _ in range(WARM_UP_RUNS):
                run()
        except BaseException:
            barrier.abort()
            raise
        barrier.wait()
        return _times(run, seconds)

    with ThreadPoolExecutor(len(make)) as pool:
        threads = _results(pool.submit(work, made) for made in make)
    took_s = sorted(took for thread in threads for took in thread)
    p50, p99 = (took_s[len(took_s) * percent // 100] * 1e3 for percent in (50, 99))
    return {"images_s": len(took_s) * rows / max(map(sum, threads)), "p50_ms": p50, "p99_ms": p99}


def _times(run: Run, seconds: float) -> list[float]:
    took: list[float] = []
    now = time.perf_counter()
    end = now + seconds
    while now < end:
        run()
        before, now = now, time.perf_counter()
        took.append(now - before)
    return took


def _results(jobs: Iterable[Future[list[float]]]) -> list[list[float]]:
    """The first real error is raised, not that of a thread which waited for the failed one."""
    done = list(jobs)
    errors = [error for job in done if (error := job.exception()) is not None]
    real = [error for error in errors if not isinstance(error, threading.BrokenBarrierError)]
    for error in real or errors:
        raise error
    return [job.result() for job in done]

"""Requests of random sizes through the server's scheduler, each compared with its rows' answers alone."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler
from accelserve.batching.work import Work
from accelserve.clock import MonotonicClock
from accelserve.errors import ScoringError
from accelserve.tensors import Tensor
from benchmarks.gpu_parts import samples
from benchmarks.gpu_parts.correctness import one_by_one, worst_error
from benchmarks.gpu_parts.plan import Plan
from benchmarks.gpu_parts.results import Row, skipped
from benchmarks.gpu_parts.sessions import TOLERANCES, Opened, as_said, opened, settings_for

TABLE = "mixes"
KNOWN_ROWS = 64  # whose answers alone are known
MOST_ROWS = 9  # of one request; larger than the dry run's largest batch, so that requests are split too
ASKING = 48  # at a time


class SizesSeen:
    """A BatchObserver that counts the sizes of the batches."""

    def __init__(self) -> None:
        self.sizes: Counter[int] = Counter()

    def batch_done(self, device: str, rows: int, padded_rows: int, compute_ns: int) -> None:
        self.sizes[rows] += 1


def rows(plan: Plan) -> Iterator[Row]:
    """In batches of any size, and padded to the allowed sizes: on a GPU through CUDA graphs."""
    for name in plan.mixed_models:
        path = samples.build(name, plan.folder)
        for arithmetic in ("tf32", "fp16"):
            settings = settings_for(plan, arithmetic)
            yield _row(plan, path, arithmetic, settings, ())
            graphs = {} if plan.dry_run else {"cuda_graphs": True}
            yield _row(plan, path, arithmetic, {**settings, **graphs}, plan.batch_sizes)


def _row(plan: Plan, path: Path, arithmetic: str, settings: Mapping[str, Any], sizes: tuple[int, ...]) -> Row:
    what = {"model": path.stem, "arithmetic": as_said(plan, arithmetic), "settings": dict(settings)}
    what["allowed_sizes"] = list(sizes) or "any"
    try:
        with opened(plan, path, settings, sizes) as device:
            policy = BatchPolicy(max_batch_size=plan.most_rows, allowed_batch_sizes=sizes)
            found = asyncio.run(mixed(plan, device, policy, TOLERANCES[arithmetic]))
    except ScoringError as error:
        return skipped(TABLE, error.message, **what)
    return Row(TABLE, what | found)


async def mixed(plan: Plan, device: Opened, policy: BatchPolicy, tolerance: float) -> dict[str, Any]:
    """What came of all requests; wrong: answers outside the tolerance, and requests that failed."""
    inputs = samples.random_inputs(device.signature, KNOWN_ROWS, np.random.default_rng(2))
    alone = one_by_one(device, inputs)
    tolerance = min(tolerance, samples.rows_apart(alone) / 2)
    observer, chance = SizesSeen(), random.Random(3)
    inflight = device.capabilities.max_inflight
    scheduler = Scheduler((device.session,), policy, MonotonicClock(), max_inflight=inflight, observer=observer)
    left = iter(range(plan.mixed_requests))
    errors: list[float] = []
    failures: list[str] = []

    async def ask() -> None:
        for _ in left:
            size = chance.randint(1, MOST_ROWS)
            start = chance.randint(0, KNOWN_ROWS - size)
            work = _work(device, samples.cut(inputs, start, start + size), size)
            try:
                scored = await scheduler.submit(work)
            except ScoringError as error:
                failures.append(error.message)
            else:
                errors.append(worst_error(scored.outputs, samples.cut(alone, start, start + size)))

    async with scheduler, asyncio.TaskGroup() as group:
        for _ in range(ASKING):
            group.create_task(ask())
    return {
        "requests": len(errors) + len(failures),
        "wrong": sum(error > tolerance for error in errors) + len(failures),
        "worst_error": max(errors, default=None),
        "tolerance": tolerance,
        "batches": observer.sizes.total(),
        "batch_sizes": f"{min(observer.sizes, default=0)} to {max(observer.sizes, default=0)}",
        "in_flight": inflight,
        "failures": failures[:1],
    }


def _work(device: Opened, inputs: Mapping[str, Tensor], rows: int) -> Work:
    signature = device.signature
    return Work(signature, inputs, tuple(signature.outputs), rows, signature.batched)

"""Does the device's memory stay what it was after warm-up, and does it come back when the model is unloaded?

Warm-up is the server's own, and a tenth as many requests as are then counted: what these take while the session is new
(a second slot's first run, say) stands in a column of its own.
"""

import asyncio
import gc
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler
from accelserve.batching.work import Work
from accelserve.clock import MonotonicClock
from accelserve.errors import ScoringError
from accelserve.models.self_check import check_session
from benchmarks.gpu_parts import samples
from benchmarks.gpu_parts.plan import Plan
from benchmarks.gpu_parts.results import Row, skipped
from benchmarks.gpu_parts.sessions import Opened, as_said, opened, settings_for
from benchmarks.gpu_parts.telemetry import MIB, Gauge, find_gauge

MODEL = "resnet50_u8"
ASKING = 16
CHOICES: tuple[Mapping[str, Any], ...] = ({}, {"cuda_graphs": True})


def rows(plan: Plan) -> Iterator[Row]:
    gauge = find_gauge(plan.device)
    if gauge is None and not plan.dry_run:
        yield skipped("growth", "NVML does not tell the GPU's memory")
        return
    of = "process memory (RSS); a dry run has no GPU memory" if gauge is None else "GPU memory"
    used_mib = resident_mib if gauge is None else partial(gpu_mib, gauge)
    path = samples.build(MODEL, plan.folder)
    _load_once(plan, path)
    for arithmetic in ("tf32", "fp16"):
        for choice in CHOICES[: 1 if plan.dry_run else None]:
            settings = {**settings_for(plan, arithmetic), **choice}
            what = {"of": of, "arithmetic": as_said(plan, arithmetic), "settings": settings}
            yield from _measured(plan, path, what, used_mib)
    yield skipped("arena", "ONNX Runtime tells no statistics of its arena in Python; the growth above includes it")


def gpu_mib(gauge: Gauge) -> float:
    """NaN for a GPU that does not answer any more."""
    state = gauge.read()
    return state.memory_used_bytes / MIB if state is not None else math.nan


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def _load_once(plan: Plan, path: Path) -> None:
    """The first session of a process brings the device's context and its libraries, which stay."""
    with opened(plan, path, settings_for(plan, "tf32"), plan.batch_sizes) as device:
        device.run(samples.random_inputs(device.signature, 1, np.random.default_rng(5)))


def _measured(plan: Plan, path: Path, what: Mapping[str, Any], used_mib: Callable[[], float]) -> Iterator[Row]:
    unloaded = used_mib()
    policy = BatchPolicy(max_batch_size=plan.most_rows, allowed_batch_sizes=plan.batch_sizes)
    try:
        with opened(plan, path, what["settings"], plan.batch_sizes) as device:
            check_session(device.session, policy, lambda tensors: None, deterministic=False)  # the server's warm-up
            loaded = used_mib()
            asyncio.run(_ask_all(plan, device, policy, plan.memory_requests // 10))
            before = used_mib()
            asyncio.run(_ask_all(plan, device, policy, plan.memory_requests))
            after = used_mib()
    except ScoringError as error:
        yield skipped("growth", error.message, **what)
        return
    gc.collect()
    left = used_mib()
    sizes = {"requests": plan.memory_requests, "before_mib": before, "after_mib": after}
    grown = {"grown_while_new_mib": before - loaded, "grown_mib": max(0.0, after - before)}
    yield Row("growth", {**what, **sizes, **grown})
    back = {"unloaded_mib": unloaded, "loaded_mib": after, "unloaded_again_mib": left, "left_mib": left - unloaded}
    yield Row("back after unloading", {**what, **back})


async def _ask_all(plan: Plan, device: Opened, policy: BatchPolicy, requests: int) -> None:
    """Requests of random sizes, some at a time."""
    inputs = samples.random_inputs(device.signature, plan.most_rows, np.random.default_rng(6))
    chance, signature, left = random.Random(7), device.signature, iter(range(requests))
    inflight = device.capabilities.max_inflight

    async def ask() -> None:
        for _ in left:
            size = chance.randint(1, plan.most_rows)
            work = Work(signature, samples.cut(inputs, 0, size), tuple(signature.outputs), size, signature.batched)
            await scheduler.submit(work)

    async with Scheduler((device.session,), policy, MonotonicClock(), max_inflight=inflight) as scheduler:
        await asyncio.gather(*(ask() for _ in range(ASKING)))

"""What must be refused where there is a GPU, and on a CPU the one refusal that can be shown there."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from accelserve.errors import ExitCode, Kind, ScoringError
from benchmarks.gpu_parts import samples
from benchmarks.gpu_parts.correctness import worst_error
from benchmarks.gpu_parts.plan import Plan
from benchmarks.gpu_parts.results import Row, skipped
from benchmarks.gpu_parts.sessions import opened
from benchmarks.harness import ROOT

TABLE = "refusals"
LIMIT_S = 120
ABSENT = "gpu:7"
TOO_SMALL_BYTES = 16 * 2**20  # the weights take 100 MiB
FOR_SMALL_BATCHES_BYTES = 512 * 2**20
LARGE_BATCH = 256  # whose first layer alone takes 800 MiB
GPU_CASES = (
    f"serve --device {ABSENT}", 'serve --device gpu, CUDA_VISIBLE_DEVICES=""',
    "gpu_memory_limit_bytes below the weights", "out of memory in a run",
)  # fmt: skip


def rows(plan: Plan) -> Iterator[Row]:
    if plan.dry_run:
        yield _serve(plan, "serve --device gpu, without a GPU", "gpu", (), {})
        for case in GPU_CASES:
            yield skipped(TABLE, "needs a GPU", case=case)
        return
    absent, hidden, small, run = GPU_CASES
    yield _serve(plan, absent, ABSENT, (ABSENT, "this host has gpu:0"), {})
    yield _serve(plan, hidden, "gpu", (), {"CUDA_VISIBLE_DEVICES": ""})
    yield _too_small(plan, small)
    yield _out_of_memory(plan, run)


def _serve(plan: Plan, case: str, device: str, words: tuple[str, ...], environment: Mapping[str, str]) -> Row:
    model = samples.build("tiny", plan.folder)
    options = ["--model", f"tiny={model}", "--device", device, "--http-port", "0", "--grpc-port", "0"]
    command = [sys.executable, "-m", "accelserve", "serve", *options, "--grace-period", "0"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return _row(case, "exit 6", f"it was still running after {LIMIT_S} s", False, "")
    said = (done.stdout + done.stderr).strip()
    right = done.returncode == ExitCode.DEVICE_MISSING and all(word in said for word in words)
    wanted = f"exit {ExitCode.DEVICE_MISSING:d}" + "".join(f", saying {word!r}" for word in words)
    return _row(case, wanted, f"exit {done.returncode}", right, said.splitlines()[-1] if said else "")


def _too_small(plan: Plan, case: str) -> Row:
    wanted = "refused for memory when it loads or first runs"
    try:
        with opened(plan, _resnet(plan), {"gpu_memory_limit_bytes": TOO_SMALL_BYTES}) as device:
            device.run(samples.random_inputs(device.signature, 1, np.random.default_rng(8)))
    except ScoringError as error:
        return _row(case, wanted, error.kind.name, error.kind is Kind.DEVICE_MEMORY, error.message)
    return _row(case, wanted, "it ran", False, "")


def _out_of_memory(plan: Plan, case: str) -> Row:
    wanted = "503 for that batch, then the same answers as before"
    try:
        with opened(plan, _resnet(plan), {"gpu_memory_limit_bytes": FOR_SMALL_BATCHES_BYTES}) as device:
            inputs = samples.random_inputs(device.signature, LARGE_BATCH, np.random.default_rng(9))
            one = samples.cut(inputs, 0, 1)
            before = device.run(one)
            try:
                device.run(inputs)
            except ScoringError as error:
                same = worst_error(device.run(one), before) < 1e-3
                right = error.kind.http_status == 503 and same
                got = f"{error.kind.http_status} {error.kind.name}, then {'the same' if same else 'another'} answer"
                return _row(case, wanted, got, right, error.message)
            return _row(case, wanted, f"a batch of {LARGE_BATCH} fitted", False, "")
    except ScoringError as error:
        return _row(case, wanted, f"{error.kind.name} of a single row", False, error.message)


def _resnet(plan: Plan) -> Any:
    return samples.build("resnet50_u8", plan.folder)


def _row(case: str, wanted: str, got: str, as_wanted: bool, words: str) -> Row:
    return Row(TABLE, {"case": case, "wanted": wanted, "got": got, "as_wanted": as_wanted, "words": words[:300]})

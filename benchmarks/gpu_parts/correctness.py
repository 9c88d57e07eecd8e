"""Every model on the device, through our session, batched and not, against fp32 on the CPU."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from accelserve.errors import ScoringError
from accelserve.tensors import Tensor
from benchmarks.gpu_parts import samples
from benchmarks.gpu_parts.plan import Plan
from benchmarks.gpu_parts.results import Row, skipped
from benchmarks.gpu_parts.sessions import SETTINGS, TOLERANCES, Opened, opened, settings_for

TABLE = "errors"
ROWS = 8


def rows(plan: Plan) -> Iterator[Row]:
    for name in plan.models:
        path = samples.build(name, plan.folder)
        with opened(plan, path, {}, device="cpu") as reference:
            inputs = samples.random_inputs(reference.signature, ROWS, np.random.default_rng(1))
            wanted = {key: tensor.astype(np.float64) for key, tensor in reference.run(inputs).items()}
        for arithmetic in SETTINGS:
            yield _compared(plan, path, arithmetic, inputs, wanted)


def _compared(
    plan: Plan, path: Path, arithmetic: str, inputs: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Row:
    what = {"model": path.stem, "arithmetic": arithmetic}
    if plan.dry_run and arithmetic == "tf32":
        return skipped(TABLE, "tf32 is a GPU's arithmetic", **what)
    try:
        with opened(plan, path, settings_for(plan, arithmetic)) as device:
            together, alone = worst_error(device.run(inputs), wanted), worst_error(one_by_one(device, inputs), wanted)
            place, nodes = device.session.device.id, dict(device.session.placement.nodes)
    except ScoringError as error:
        return skipped(TABLE, error.message, **what)
    apart = samples.rows_apart(wanted)
    tolerance = min(_tolerance(arithmetic, inputs), apart / 2)
    found = {
        "batched_error": together,
        "unbatched_error": alone,
        "rows_apart": apart,
        "tolerance": tolerance,
        "within": max(together, alone) <= tolerance,
        "device": place,
        "nodes": nodes,
    }
    return Row(TABLE, what | found)


def _tolerance(arithmetic: str, inputs: Mapping[str, Tensor]) -> float:
    """A model that is fp16 by itself has fp16's, whatever it is asked for."""
    halves = any(tensor.dtype == np.float16 for tensor in inputs.values())
    return TOLERANCES["fp16" if halves else arithmetic]


def one_by_one(device: Opened, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    count = len(next(iter(inputs.values())))
    answers = [device.run(samples.cut(inputs, row, row + 1)) for row in range(count)]
    return {key: np.concatenate([answer[key] for answer in answers]) for key in answers[0]}


def worst_error(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """|got - wanted| / |wanted| of the worst row of any output; infinite for what is no number or has another shape."""
    worst = 0.0
    for key, tensor in wanted.items():
        answer = np.asarray(got[key], np.float64)
        if answer.shape != tensor.shape or not np.isfinite(answer).all():
            return float("inf")
        rows = tensor.reshape(len(tensor), -1).astype(np.float64)
        apart = np.linalg.norm(answer.reshape(len(tensor), -1) - rows, axis=1)
        worst = max(worst, float((apart / np.maximum(np.linalg.norm(rows, axis=1), 1e-12)).max()))
    return worst

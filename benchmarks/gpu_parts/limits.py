"""How fast ResNet-50 runs in this process, by batch size: through our session and through the bare library."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelserve.backends.base import buffers_of
from accelserve.errors import ScoringError
from benchmarks.gpu_parts import bare, samples
from benchmarks.gpu_parts.plan import Plan, on_cores
from benchmarks.gpu_parts.results import Row, skipped
from benchmarks.gpu_parts.sessions import Opened, as_said, opened, settings_for
from benchmarks.gpu_parts.timing import Run, rates

TABLE = "rates"
MODELS = ("resnet50_u8", "resnet50")
IN_FLIGHT = (1, 2)
_GRAPHS_EXHAUSTIVE = {"cuda_graphs": True, "cudnn_conv_algo_search": "exhaustive"}
# Name -> settings on top of the arithmetic's. The library's own search for algorithms is the exhaustive one.
OURS: Mapping[str, Mapping[str, Any]] = {
    "session, IOBinding": {"io_binding": True},  # what a GPU session does where nothing is said
    "session, no IOBinding": {"io_binding": False},
    "session, CUDA graphs": {"cuda_graphs": True},
    "session, CUDA graphs, exhaustive": _GRAPHS_EXHAUSTIVE,
    "session, CUDA graphs, exhaustive, NHWC": {**_GRAPHS_EXHAUSTIVE, "prefer_nhwc": True},
}
NO_GRAPHS = "CUDA graphs, NHWC and page-locked memory are a GPU's"


def rows(plan: Plan, arithmetic: str) -> Iterator[Row]:
    """On the server's cores, so that what is served can be compared."""
    with on_cores(plan.server_cores):
        yield from _rows(plan, arithmetic)


def _rows(plan: Plan, arithmetic: str) -> Iterator[Row]:
    for model in MODELS:
        path = samples.build(model, plan.folder)
        for name, settings in OURS.items():
            yield from _ours(plan, path, arithmetic, name, {**settings_for(plan, arithmetic), **settings})
        half = plan.folder / f"{model}_half.onnx"
        bare_path = samples.half_precision(path, half) if arithmetic == "fp16" else path
        for way in bare.WAYS:
            yield from _bare(plan, bare_path, model, arithmetic, way)


def batch_sizes(plan: Plan, model: str) -> tuple[int, ...]:
    """All for the model that is served by every protocol; of the other what tells its two ends."""
    sizes = plan.batch_sizes
    return sizes if model == MODELS[0] else tuple(sorted({sizes[0], sizes[-1]}))


def _ours(plan: Plan, path: Path, arithmetic: str, name: str, settings: Mapping[str, Any]) -> Iterator[Row]:
    model = path.stem
    what = {"model": model, "arithmetic": as_said(plan, arithmetic), "way": f"accelserve: {name}"}
    sizes = batch_sizes(plan, model)
    if plan.dry_run and "graphs" in name:
        yield skipped(TABLE, NO_GRAPHS, **what)
        return
    try:
        with opened(plan, path, settings, sizes) as device:
            inputs = samples.random_inputs(device.signature, sizes[-1], np.random.default_rng(4))
            for in_flight in IN_FLIGHT:
                if in_flight > max(device.capabilities.max_inflight, 1):
                    yield skipped(TABLE, "the session takes one run at a time", **what, in_flight=in_flight)
                    continue
                for batch in sizes:
                    make = partial(_session_run, device, samples.cut(inputs, 0, batch))
                    yield _timed(plan, what, batch, in_flight, [make] * in_flight, without_copies=False)
    except ScoringError as error:
        yield skipped(TABLE, error.message, **what)


def _session_run(device: Opened, inputs: Mapping[str, NDArray[Any]]) -> Run:
    """As a model thread does it: rows go into the session's own buffers where it has some."""
    buffers = buffers_of(device.session)
    rows = len(next(iter(inputs.values())))

    def run() -> object:
        arrays = buffers(device.signature.name, rows)
        if arrays is None:
            return device.run(inputs)
        for name, array in arrays.items():
            np.copyto(array, inputs[name])
        return device.run(arrays)

    return run


def _bare(plan: Plan, path: Path, model: str, arithmetic: str, way: bare.Way) -> Iterator[Row]:
    what = {"model": model, "arithmetic": as_said(plan, arithmetic), "way": f"bare library: {way.name}"}
    if plan.dry_run and way.options:
        yield skipped(TABLE, NO_GRAPHS, **what)
        return
    try:
        session = bare.open_session(path, plan.device, way.options)
        rows = _rows_for(session, batch_sizes(plan, model)[-1])
        for in_flight in IN_FLIGHT[: 1 if way.graphs else None]:
            for batch in batch_sizes(plan, model):
                with ExitStack() as stack:
                    make = partial(_bare_run, stack, session, rows[:batch], way, plan.device)
                    copies = {"without_copies": not way.copies}
                    yield _timed(plan, what, batch, in_flight, [make] * in_flight, **copies)
    except Exception as error:  # of the library, which has a class for each of its codes
        yield skipped(TABLE, f"{type(error).__name__}: {error}"[:300], **what)


def _bare_run(stack: ExitStack, session: Any, rows: NDArray[Any], way: bare.Way, device: str) -> Run:
    if not way.bound:
        return bare.plain(session, rows)
    bound = bare.Bound(session, rows.copy(), way, device)
    stack.callback(bound.close)
    return bound.run


def _rows_for(session: Any, count: int) -> NDArray[Any]:
    spec, random = session.get_inputs()[0], np.random.default_rng(4)
    shape = (count, *spec.shape[1:])
    if spec.type == "tensor(uint8)":
        return random.integers(0, 256, shape, np.uint8)
    return random.standard_normal(shape, np.float32)


def _timed(
    plan: Plan,
    what: Mapping[str, Any],
    batch: int,
    in_flight: int,
    make: list[Callable[[], Run]],
    *,
    without_copies: bool,
) -> Row:
    found = rates(make, batch, plan.timing_s, plan.rounds)
    place = {"batch": batch, "in_flight": in_flight, "without_copies": without_copies}
    return Row(TABLE, {**what, **place, **found})

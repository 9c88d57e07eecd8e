"""ResNet-50 served: JPEGs and raw tensors over HTTP, Predict over gRPC; the load comes from other cores."""

import io
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accelserve.codecs.images import decode_picture
from accelserve.tensors import BY_NAME, Tensor
from benchmarks import harness, models
from benchmarks.gpu_parts import samples
from benchmarks.gpu_parts.decode import WANTED
from benchmarks.gpu_parts.plan import Plan
from benchmarks.gpu_parts.results import Row, skipped
from benchmarks.gpu_parts.sessions import as_said, opened, settings_for
from benchmarks.gpu_parts.telemetry import Gauge, Watch, find_gauge
from benchmarks.load import GRPC, JOIN_S, Request, drive_from, predict_url

TABLE = "rates"
TOLERANCE = 0.02  # another way of resizing moves the answer by 0.002, channels the wrong way round by 0.04
START_S = 300.0  # a search for the fastest algorithms, for each model and batch size
WARM_UP_S = 1.0
# What an operator would say who wants the best rate; where the back end refuses it, its own choice is measured.
TUNED: Mapping[str, Any] = {"cuda_graphs": True, "cudnn_conv_algo_search": "exhaustive"}


def rows(plan: Plan, arithmetic: str) -> Iterator[Row]:
    base = settings_for(plan, arithmetic)
    choices = [base] if plan.dry_run else [{**base, **TUNED}, base]
    for settings in choices:
        try:
            yield from _with_settings(plan, arithmetic, settings)
        except harness.ServerFailed as error:
            what = {"arithmetic": as_said(plan, arithmetic), "settings": dict(settings)}
            yield skipped(TABLE, f"the server did not start or ended: {str(error)[-300:]}", **what)
        else:
            return


def _with_settings(plan: Plan, arithmetic: str, settings: Mapping[str, Any]) -> Iterator[Row]:
    served = {name: place(plan, arithmetic, name, settings) for name in ("resnet50_u8", "resnet50")}
    http_port, grpc_port = harness.free_port(), harness.free_port()
    options = ("--device", plan.device, "--strict", "--decode-threads", str(plan.decode_threads))
    command = harness.accelserve_command(served, http_port, grpc_port, options)
    requests = list(_requests(plan, served, http_port, grpc_port))
    gauge = find_gauge(plan.device)
    with ExitStack() as stack:
        cores = ",".join(map(str, plan.server_cores))
        server = stack.enter_context(harness.Server("accelserve", command, cores))
        ready_s = server.wait_for([request for _, _, request in requests], limit_s=START_S)
        yield Row("start", {"settings": dict(settings), "ready_s": ready_s, "memory_mib": _memory_mib(server)})
        for model, protocol, request in requests:
            for clients in _clients(plan, model):
                what = {"arithmetic": as_said(plan, arithmetic), "model": model, "protocol": protocol}
                yield Row(TABLE, {**what, "clients": clients, **_point(plan, server, request, clients, gauge)})


def _memory_mib(server: harness.Server) -> float | None:
    try:
        return server.tree.pss_mib()
    except OSError:  # not every kernel tells it
        return None


def place(plan: Plan, arithmetic: str, model: str, settings: Mapping[str, Any]) -> Path:
    """The model and its `accelserve.toml` in a folder of their own."""
    folder = plan.folder / f"served-{arithmetic}"
    folder.mkdir(exist_ok=True)
    path = folder / f"{model}.onnx"
    shutil.copyfile(samples.build(model, plan.folder), path)
    preprocessing = models.PREPROCESSING if model == "resnet50" else ""
    (folder / f"{model}.accelserve.toml").write_text(model_file(plan.batch_sizes, settings) + preprocessing)
    return path


def model_file(batch_sizes: Sequence[int], settings: Mapping[str, Any]) -> str:
    """TOML spells these values as JSON does."""
    backend = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    return f"[batching]\nallowed_batch_sizes = {list(batch_sizes)}\n[backend]\n{backend}"


def _clients(plan: Plan, model: str) -> tuple[int, ...]:
    """All for the model that is asked by every protocol; of the other the larger numbers."""
    return plan.clients if model == "resnet50_u8" else plan.clients[-2:]


def _requests(
    plan: Plan, served: Mapping[str, Path], http_port: int, grpc_port: int
) -> Iterator[tuple[str, str, Request]]:
    """(model, protocol, request); the right answers are fp32's on the CPU."""
    picture = samples.picture()
    pixels = decode_picture(picture, WANTED, dtype=BY_NAME["uint8"])[None]
    inputs: dict[str, Tensor] = {"resnet50_u8": pixels, "resnet50": _normalised(pixels)}
    for model in served:
        with opened(plan, samples.build(model, plan.folder), {}, device="cpu") as reference:
            answer = tuple(map(float, reference.run({"x": inputs[model]})["y"][0]))
        url = f"http://127.0.0.1:{http_port}/api/v1/service/{model}/score"
        if model == "resnet50_u8":
            yield model, "HTTP JPEG", Request(url, picture, "image/jpeg", answer, TOLERANCE)
        octets = "application/octet-stream"
        yield model, "HTTP tensor", Request(url, _npy(inputs[model]), octets, answer, TOLERANCE)
        predict = models.predict(model, inputs[model])
        yield model, "gRPC tensor", Request(predict_url(grpc_port), predict, GRPC, answer, TOLERANCE)


def _normalised(pixels: Tensor) -> Tensor:
    """As models.PREPROCESSING says."""
    scaled: NDArray[np.float32] = np.asarray(pixels, np.float32) / np.float32(127.5) - np.float32(1)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def _npy(rows: Tensor) -> bytes:
    file = io.BytesIO()
    np.save(file, rows)
    return file.getvalue()


def _point(plan: Plan, server: harness.Server, request: Request, clients: int, gauge: Gauge | None) -> dict[str, Any]:
    drive_from(request, clients, WARM_UP_S, plan.load_cores)
    every = [_round(plan, server, request, clients, gauge) for _ in range(plan.rounds)]
    return {**max(every, key=lambda one: one["images_s"]), "rounds": every}


def _round(plan: Plan, server: harness.Server, request: Request, clients: int, gauge: Gauge | None) -> dict[str, Any]:
    with Watch(gauge) as watch:
        point = harness.measured(server, request, lambda: drive_from(request, clients, plan.seconds, plan.load_cores))
    return {
        "images_s": point.load.rps,
        "p50_ms": point.load.p50_ms,
        "p99_ms": point.load.p99_ms,
        "errors": point.load.errors,
        "server_cpu_us": point.cpu_us,
        "foreign_cpus": point.foreign_cpus,
        **watch.seen(skip_s=JOIN_S),
    }

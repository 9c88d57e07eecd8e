"""ResNet-50 on the CPU in OpenVINO and in ONNX Runtime, as accelserve runs them: same thread count, taking turns.

    python -m benchmarks.openvino_cpu      writes results/openvino_cpu.json

No server and no decoding: the sessions of both back ends, one thread each, on the same rows. Before it is timed, each
answer is held against the other's. A third session lets OpenVINO compute in bf16, where the CPU has it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, rotated
from benchmarks.models import build
from benchmarks.record import write_result

RESULT = ROOT / "benchmarks" / "results" / "openvino_cpu.json"
CLAIM = "ResNet-50 on one thread of a CPU: OpenVINO against ONNX Runtime, in fp32"
BATCHES = (1, 8)
ROUNDS = 15
WITHIN = 1e-3  # of the largest output


def open_sessions(model: Path, cache: Path) -> dict[str, Any]:
    from accelserve.backends.artifact_cache import FolderArtifactCache
    from accelserve.backends.base import ModelArtifact, SessionOptions
    from accelserve.backends.host import cpu_device
    from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
    from accelserve.backends.openvino.backend import OpenVinoBackend
    from accelserve.errors import ScoringError

    device, artifact, opened = cpu_device(), ModelArtifact("resnet50", 1, "onnx", model), {}
    wanted: Mapping[str, tuple[Any, dict[str, Any]]] = {
        "onnx_runtime": (OnnxRuntimeBackend(), {}),
        "openvino": (OpenVinoBackend(), {}),
        "openvino bf16": (OpenVinoBackend(), {"precision": "bf16"}),
    }
    for name, (backend, extra) in wanted.items():
        options = SessionOptions(threads=1, extra=extra)
        try:
            prepared = backend.prepare(artifact, device, options, FolderArtifactCache(cache), lambda what, done: None)
            opened[name] = backend.load(prepared, device, options, None)
        except ScoringError as error:
            print(f"{name}: {error.message}")
    return opened


def run(session: Any, rows: Any) -> Any:
    from accelserve.backends.base import Batch

    (output,) = session.signatures["serving_default"].outputs
    (name,) = session.signatures["serving_default"].inputs
    return session.run(Batch("serving_default", {name: rows}, (output,), len(rows))).outputs[output]


def measure(sessions: Mapping[str, Any], rounds: int) -> list[dict[str, Any]]:
    found = []
    for batch in BATCHES:
        rows = np.random.default_rng(0).normal(size=(batch, 3, 224, 224)).astype(np.float32)
        right = run(sessions["onnx_runtime"], rows)
        errors = {
            name: float(np.abs(run(each, rows) - right).max() / np.abs(right).max()) for name, each in sessions.items()
        }
        assert errors["openvino"] < WITHIN, f"OpenVINO answers otherwise: {errors['openvino']}"
        for number in range(rounds):
            taken = {}
            for name in rotated(list(sessions), number):
                began = time.perf_counter()
                run(sessions[name], rows)
                taken[name] = (time.perf_counter() - began) * 1e3
            found.append({"batch": batch, "ms": taken, "errors": errors})
    return found


def summary(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each batch: the best time of each, and the median over the rounds of its ratio to ONNX Runtime's."""
    told = []
    for batch in BATCHES:
        of_batch = [each for each in rounds if each["batch"] == batch]
        for name in of_batch[0]["ms"]:
            ratios = [each["ms"][name] / each["ms"]["onnx_runtime"] for each in of_batch]
            times = [each["ms"][name] for each in of_batch]
            error = of_batch[0]["errors"][name]
            told.append(
                {
                    "batch": batch,
                    "session": name,
                    "best_ms": min(times),
                    "of_onnx_runtime": statistics.median(ratios),
                    "error": error,
                }
            )
    return told


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        model = build("resnet50", Path(folder))
        rounds = measure(open_sessions(model, Path(folder) / "cache"), asked.rounds)
    rows = summary(rounds)
    for row in rows:
        print("batch {batch}: {session:14} {best_ms:8.1f} ms, {of_onnx_runtime:.2f} x, error {error:.1g}".format(**row))
    write_result(asked.out, CLAIM, {"rows": rows}, rounds)


if __name__ == "__main__":
    main()

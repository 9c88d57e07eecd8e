"""What emulating a card costs: networks in block floating point against the same ONNX graph in float32.

usage: python -m benchmarks.fpga_emulation [--rounds N] [--networks NAME,...] [--out FILE]

One thread, one picture at a time, the device's part of each recipe with seeded weights. float32 and the emulations take
turns within a round, another one first in each; ratios are taken within a round. Times are the CPU's for that thread,
which others on the machine change less than the clock's. Exits with 1 when a goal is missed.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from accelserve.backends.accel_onnx.parts import read_parts
from accelserve.backends.base import ModelArtifact
from accelserve.backends.fpga_emulator.exactness import exact_for, watched
from accelserve.backends.fpga_emulator.formats import Fp32, Numerics, parse_format
from accelserve.backends.fpga_emulator.rewrite import emulate
from accelserve.wire.onnx_pb2 import ModelProto
from benchmarks import record

RESULT = Path(__file__).parent / "results" / "fpga_emulation.json"
CLAIM = (
    "Emulating MSFP12 at batch 1 costs ResNet-50 at most 1.4 times, DenseNet-121 1.8, VGG-16 1.2 times float32's time"
)
GOALS = {"resnet50": 1.4, "densenet121": 1.8, "vgg16": 1.2}  # of MSFP12's time to float32's
PREPARE_GOALS_S = {"resnet50": 20.0}
FLOAT32, MAIN = "fp32", "msfp12"
MORE = ("msfp12+fp16", "msfp16", "brainwave-a10", "mxint8", "mxfp8_e4m3", "msfp12(axis=im2col)")  # of ResNet-50
LIMIT_S = 300
WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Contestant:
    """prepare_s: reading and rewriting, without opening the session."""

    name: str
    session: ort.InferenceSession
    prepare_s: float


def built(network: str, folder: Path) -> ModelArtifact:
    command = [sys.executable, "-m", "accelserve", "recipes", "build", network, "--weights", "seeded"]
    subprocess.run([*command, "--output", str(folder)], check=True, timeout=LIMIT_S, stdout=subprocess.DEVNULL)
    return ModelArtifact(network, 1, "onnx", folder / "1" / "model.onnx")


def numerics(name: str) -> Numerics:
    """`msfp12`, `msfp12+fp16`"""
    format, _, elementwise = name.partition("+")
    return Numerics(parse_format(format), elementwise or "fp32")  # type: ignore[arg-type]


def contestant(artifact: ModelArtifact, name: str) -> Contestant:
    began = time.perf_counter()
    graph = emulate(read_parts(artifact).device, numerics(name)).model.SerializeToString()
    prepare_s = time.perf_counter() - began
    return Contestant(name, opened(graph), prepare_s)


def exact_layers(device: ModelProto, name: str, inputs: dict[str, Any]) -> list[int]:
    """[layers whose sums are the same in any order of summation for this picture, all layers]"""
    chosen = numerics(name)
    assert not isinstance(chosen.format, Fp32)
    emulated = emulate(device, chosen)
    seen = watched(emulated.model, chosen.format, tuple(layer.name for layer in emulated.layers))
    found = opened(seen.model.SerializeToString()).run(list(seen.steps.values()), inputs)
    return [len(exact_for(dict(zip(seen.steps, map(float, found), strict=True)))), len(emulated.layers)]


def opened(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def picture(device: ModelProto) -> dict[str, Any]:
    (value,) = device.graph.input
    shape = [size.dim_value or 1 for size in value.type.tensor_type.shape.dim]
    return {value.name: np.random.default_rng(0).normal(0, 50, shape).astype(np.float32)}


def milliseconds(contestant: Contestant, inputs: dict[str, Any]) -> float:
    began = time.thread_time()
    contestant.session.run(None, inputs)
    return (time.thread_time() - began) * 1000


def measured(network: str, artifact: ModelArtifact, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """One row for the written result, with every round."""
    device = read_parts(artifact).device
    inputs = picture(device)
    contestants = [contestant(artifact, name) for name in (FLOAT32, *names)]
    for one in contestants * WARM_UP:
        milliseconds(one, inputs)
    times: dict[str, list[float]] = {one.name: [] for one in contestants}
    for turn in range(rounds):
        first = turn % len(contestants)
        for one in contestants[first:] + contestants[:first]:
            times[one.name].append(milliseconds(one, inputs))
    return {
        "network": network,
        "best_ms": {name: min(taken) for name, taken in times.items()},
        "ratio": {name: ratio(times[name], times[FLOAT32]) for name in names},
        "exact_layers": {name: exact_layers(device, name, inputs) for name in names},
        "prepare_s": {one.name: one.prepare_s for one in contestants if one.name != FLOAT32},
        "ms": times,
    }


def ratio(taken: Sequence[float], of: Sequence[float]) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(mine / theirs for mine, theirs in zip(taken, of, strict=True))


def missed(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Each goal that was not reached, in words."""
    found = []
    for row in rows:
        network, times, prepare_s = row["network"], row["ratio"][MAIN], row["prepare_s"][MAIN]
        if times > (goal := GOALS.get(network, np.inf)):
            found.append(f"{network}: {times:.2f} times {FLOAT32}'s time, the goal is {goal}")
        if prepare_s > (limit := PREPARE_GOALS_S.get(network, np.inf)):
            found.append(f"{network}: prepared in {prepare_s:.1f} s, the goal is {limit:g} s")
    return found


COLUMNS = ("network", "numerics", "best, ms", "times fp32", "goal", "exact layers", "prepared in, s")


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines: list[Sequence[object]] = [COLUMNS, ["---"] * len(COLUMNS)]
    for row in rows:
        network, best = row["network"], row["best_ms"]
        lines.append((network, FLOAT32, f"{best[FLOAT32]:.1f}", "1", "", "", ""))
        for name, times in row["ratio"].items():
            goal = GOALS.get(network, "") if name == MAIN else ""
            exact = "{} of {}".format(*row["exact_layers"][name])
            lines.append(
                (network, name, f"{best[name]:.1f}", f"{times:.2f}", goal, exact, f"{row['prepare_s'][name]:.1f}")
            )
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, metavar="N")
    parser.add_argument("--networks", default=",".join(GOALS), metavar="NAME,...")
    parser.add_argument("--out", type=Path, default=RESULT, metavar="FILE")
    options = parser.parse_args()
    rows = []
    for network in options.networks.split(","):
        with tempfile.TemporaryDirectory() as folder:
            artifact = built(network, Path(folder) / network)
            names = (MAIN, *(MORE if network == "resnet50" else ()))
            rows.append(measured(network, artifact, names, options.rounds))
    summary = {
        row["network"]: {key: row[key] for key in ("best_ms", "ratio", "exact_layers", "prepare_s")} for row in rows
    }
    record.write_result(options.out, CLAIM, {**summary, "missed": missed(rows)}, rows)
    print(table(rows))
    if failures := missed(rows):
        sys.exit("\n".join(failures))


if __name__ == "__main__":
    main()

"""Claim: registered models run on the GPU, right, in full batches, and nearly as fast as the library can.

One command for a GPU machine; it needs neither TensorFlow nor a network. Sections (see README.md) can be run apart:
their results are merged in the result file. Every row is written when it is there, so a time limit loses nothing.
--device cpu is a dry run: each line of code that a CPU can run, small sizes, and no figure that says anything of a GPU.
usage: python -m benchmarks.gpu [--device gpu|gpu:N|cpu] [--rounds N] [--seconds S] [--only SECTION ...] [--out-dir DIR]
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accelserve.errors import ExitCode, ScoringError
from benchmarks import harness, record
from benchmarks.gpu_parts import correctness, decode, limits, machine, memory, refusals, scheduler, served
from benchmarks.gpu_parts.goals import judge, ratios
from benchmarks.gpu_parts.markdown import render
from benchmarks.gpu_parts.plan import ALL_MODELS, Plan, dry_plan, gpu_plan, usable_cores
from benchmarks.gpu_parts.results import DRY_RUN_LABEL, GPU_LABEL, Row, add_row, finished, merged, new_section

CLAIM = "Models run on the GPU, never on something else: right, in full batches, nearly as fast as the library can"
COMMIT = "BENCHMARK_COMMIT"  # of a checkout that came without git
LIMIT_S = 3600
SECTIONS: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "correctness": correctness.rows,
    "scheduler": scheduler.rows,
    "limits-tf32": partial(limits.rows, arithmetic="tf32"),
    "limits-fp16": partial(limits.rows, arithmetic="fp16"),
    "decode": decode.rows,
    "served-tf32": partial(served.rows, arithmetic="tf32"),
    "served-fp16": partial(served.rows, arithmetic="fp16"),
    "memory": memory.rows,
    "refusals": refusals.rows,
}


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--device", default="gpu", help="gpu, gpu:N, or cpu for a dry run")
    parser.add_argument("--rounds", type=int, help="of each timed point")
    parser.add_argument("--seconds", type=float, help="of load per served point; in-process points take an eighth")
    parser.add_argument("--only", nargs="+", default=[], metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--models", nargs="+", choices=ALL_MODELS, help="of correctness and scheduler")
    parser.add_argument("--requests", type=int, help="of random sizes through the scheduler, for each model")
    parser.add_argument("--out-dir", type=Path, default=harness.ROOT / "benchmarks/results")
    return parser.parse_args(words)


def plan_of(options: argparse.Namespace, folder: Path) -> Plan:
    cores = usable_cores()
    plan = dry_plan(folder, cores) if options.device == "cpu" else gpu_plan(folder, options.device, cores)
    said = {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "models": options.models and tuple(options.models),
        "mixed_models": options.models and tuple(name for name in plan.mixed_models if name in options.models),
        "mixed_requests": options.requests,
    }
    return replace(plan, **{name: value for name, value in said.items() if value is not None})


def chosen(only: Iterable[str]) -> list[str]:
    """`limits` stands for limits-tf32 and limits-fp16. Exits with usage for a word that stands for none."""
    wanted = list(only)
    for word in wanted:
        if not any(_stands_for(word, name) for name in SECTIONS):
            sys.exit(f"--only: there is no section {word!r}; there are {', '.join(SECTIONS)}")
    return [name for name in SECTIONS if not wanted or any(_stands_for(word, name) for word in wanted)]


def _stands_for(word: str, name: str) -> bool:
    return word in (name, name.partition("-")[0])


class ResultFile:
    """The JSON and its Markdown, written again with every row; sections of an earlier run stay."""

    def __init__(self, folder: Path, plan: Plan, facts: dict[str, Any]) -> None:
        self._json = folder / ("gpu_dry_run.json" if plan.dry_run else "gpu.json")
        self._plan = plan
        earlier = json.loads(self._json.read_text()) if self._json.exists() else None
        self.record = merged(earlier, {**facts, "sections": {}})

    def write(self) -> None:
        ordered = {name: self.record["sections"][name] for name in SECTIONS if name in self.record["sections"]}
        self.record["sections"] = ordered
        self.record["goals"] = judge(ordered, self._plan.dry_run)
        self.record["ratios"] = ratios(ordered)
        record.write_json(self._json, self.record)
        self._json.with_suffix(".md").write_text(render(self.record))


def run_section(name: str, plan: Plan, file: ResultFile) -> bool:
    """False when it failed; what it found until then is kept."""
    whole, began = file.record, time.perf_counter()
    section = new_section(whole["command"], whole["commit"], whole["date"], whole["device"]["name"])
    whole["sections"][name] = section
    print(f"{name} ...", flush=True)
    try:
        for row in SECTIONS[name](plan):
            add_row(section, row)
            file.write()
            print("  " + "  ".join(f"{key}={_short(value)}" for key, value in row.values.items() if key != "rounds"))
    except Exception as error:
        add_row(section, Row("failure", {"error": f"{type(error).__name__}: {error}"[:600]}))
        file.write()
        print(f"{name} failed: {type(error).__name__}: {error}", file=sys.stderr)
        return False
    finished(section, time.perf_counter() - began)
    file.write()
    return True


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def facts_of(plan: Plan) -> dict[str, Any]:
    return {
        "claim": CLAIM,
        "command": record.command_line(),
        "date": time.strftime("%Y-%m-%d"),
        "commit": os.environ.get(COMMIT) or record.commit(),
        "label": DRY_RUN_LABEL if plan.dry_run else GPU_LABEL,
        "device": machine.device_facts(machine.find_device(plan)),
        "machine": {**record.machine(), "server_cores": plan.server_cores, "load_cores": plan.load_cores},
        "versions": machine.versions(),
    }


def main() -> None:
    options = arguments()
    names = chosen(options.only)
    harness.end_cleanly(LIMIT_S)
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(options, Path(folder))
        try:
            file = ResultFile(options.out_dir, plan, facts_of(plan))
        except ScoringError as error:
            print(error.message, file=sys.stderr)
            sys.exit(ExitCode.DEVICE_MISSING)
        failed = [name for name in names if not run_section(name, plan, file)]
    for goal in file.record["goals"]:
        print(f"{goal['verdict']:>12}  {goal['what']}: {goal['got'] or goal['why']} (wanted {goal['wanted']})")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()

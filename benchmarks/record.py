"""The written result: what was claimed, measured and how, with commit, machine and versions."""

import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT

LIBRARIES = (
    "numpy",
    "onnxruntime",
    "openvino",
    "fastapi",
    "uvicorn",
    "uvloop",
    "httptools",
    "grpcio",
    "protobuf",
    "orjson",
)
WRITTEN = (  # by the benchmarks themselves
    "benchmarks/results",
    "benchmarks/plots",
    "benchmarks/REPORT.md",
    "benchmarks/README.md",
    "README.md",
)
PLACES = ("--work", "--out-dir")  # options that say where files lie: no part of what was measured
PATH = re.compile(r"(?<![\w.:/~<-])(?:~|/[\w.@+-]+)(?:/[\w.@+-]+)*/([\w.@+-]+)")


def machine() -> dict[str, Any]:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "cpus": os.cpu_count(),
        "cpu": cpu[1] if cpu else platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release().partition("-")[0],
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def versions() -> dict[str, str]:
    import accelserve
    from accelserve.installed import installed_versions

    return {"accelserve": accelserve.__version__, "python": platform.python_version(), **installed_versions(LIBRARIES)}


def commit() -> str:
    """The checkout's commit, "+" behind it if files other than the results differ from it; "unknown" without git."""
    try:
        found = _git("rev-parse", "--short=12", "HEAD")
        differs = _git("diff", "--quiet", "HEAD", "--", ".", *(f":!{path}" for path in WRITTEN))
    except FileNotFoundError:
        return "unknown"
    if found.returncode:
        return "unknown"
    return found.stdout.strip() + ("+" if differs.returncode else "")


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)


def write_result(path: Path, claim: str, result: dict[str, Any], rounds: list[dict[str, Any]]) -> None:
    """What was claimed, measured and how: enough to do it again."""
    write_json(path, {"claim": claim, **provenance(), "result": result, "rounds": rounds})


def provenance() -> dict[str, Any]:
    """Command, date, commit, machine, versions."""
    return {
        "command": command_line(),
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
    }


def write_json(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rounded(record), indent=1) + "\n")


def command_line() -> str:
    """How this process was called, and can be on another machine: without the places of files."""
    name = Path(sys.argv[0]).stem  # of the module that runs, whatever its results are called
    words = iter(sys.argv[1:])
    given = tuple(f"{option}=" for option in PLACES)
    kept = [word for word in words if not (word in PLACES and next(words, "")) and not word.startswith(given)]
    return " ".join(["python", "-m", f"benchmarks.{name}", *map(without_places, kept)])


def without_places(text: str) -> str:
    """What a process wrote, without the folders of this machine: of a path only its last part is left."""
    return PATH.sub(r"\1", text)


def rounded(value: Any) -> Any:
    """Numbers to four digits; nobody reads more."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value

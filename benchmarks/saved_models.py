"""Five SavedModels converted by `accelserve convert`, each compared with TensorFlow: prints a table of what was found.

usage: python -m benchmarks.saved_models [--out FILE]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record

RESULT = Path(__file__).parent / "results" / "saved_models.json"
TESTS = Path(__file__).parents[1] / "tests"
CLAIM = "SavedModels of five sorts answer in ONNX Runtime, behind the automatic cut, as they do in TensorFlow"
LIMIT_S = 300
COLUMNS = ("model", "nodes in TensorFlow", "nodes in ONNX", "cut at", "output", "error", "seconds")


def convert(source: Path, output: Path) -> dict[str, Any]:
    """The command's report."""
    command = [sys.executable, "-m", "accelserve", "convert", str(source), "--output", str(output), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise SystemExit(f"{source}: {done.stderr.splitlines()[-1]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def rows(name: str, report: dict[str, Any]) -> list[tuple[str, ...]]:
    """One for each output of the signature that is asked by default."""
    told = report["signatures"]["serving_default"]
    kept = ", ".join(f"{count} {kind}" for kind, count in told["nodes"].items() if kind != "dense") or "none"
    cut = ", ".join(told["cut"].values()) or "-"
    return [
        (name, kept, str(told["onnx_nodes"]), cut, f"{o['name']} {o['tensor']}", f"{o['error']:.1e}", report["seconds"])
        for o in told["comparison"]["outputs"]
    ]


def table(found: list[tuple[str, ...]]) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *found]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULT, metavar="FILE")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    import saved_models

    reports = {}
    with tempfile.TemporaryDirectory() as folder:
        for build in saved_models.FIVE:
            source = build(Path(folder) / build.__name__ / "1")
            reports[build.__name__] = convert(source, Path(folder) / f"{build.__name__}.converted")
    errors = {name: max(float(row[5]) for row in rows(name, report)) for name, report in reports.items()}
    record.write_result(options.out, CLAIM, {"largest_error": errors}, [{"model": n, **r} for n, r in reports.items()])
    print(table([row for name, report in reports.items() for row in rows(name, report)]))


if __name__ == "__main__":
    main()

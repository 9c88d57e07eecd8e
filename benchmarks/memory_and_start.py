"""Claim: one small process around the model, that answers quickly after its start.

Memory: PSS of the serving process with the tiny ONNX model after its first answer, less that of a process with only an
ONNX Runtime session on the same model. Start: from starting the process to its first right answer over HTTP; the bare
process's time to its first answer is printed beside it. One process at a time, so that they share no pages.
usage: python -m benchmarks.memory_and_start [--rounds 5] [--out FILE]
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import harness, models, record
from benchmarks.load import Request

CLAIM = "Memory beside the model, and time from the process's start to its first right answer, with a tiny ONNX model"
POLL_S = 0.005


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=CLAIM)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=harness.ROOT / "benchmarks/results/memory_and_start.json")
    return parser.parse_args()


def served(model: Path, core: int) -> dict[str, float]:
    port = harness.free_port()
    url = f"http://127.0.0.1:{port}/v1/models/tiny:predict"
    request = Request(url, models.tiny_json(), "application/json", tuple(models.tiny_answer()))
    command = harness.accelserve_command({"tiny": model}, port, harness.free_port())
    with harness.Server("accelserve", command, core) as server:
        first_answer_s = server.wait_for([request], POLL_S)
        return {"first_answer_s": first_answer_s, "pss_mib": server.pss_mib()}


def bare(model: Path, core: int) -> dict[str, float]:
    with harness.Server("bare_session", harness.module_command("bare_session", "hold", model), core) as session:
        while "{}" not in session.words():
            if session.process.poll() is not None or time.perf_counter() - session.started > harness.START_S:
                raise harness.ServerFailed("bare_session did not answer")
            time.sleep(POLL_S)
        return {"first_answer_s": time.perf_counter() - session.started, "pss_mib": session.pss_mib()}


def main() -> None:
    options = arguments()
    core, _ = harness.two_cores()
    harness.end_cleanly(60 + options.rounds * 60)
    with tempfile.TemporaryDirectory() as folder:
        model = models.build("tiny", Path(folder))
        served(model, core)  # not counted: the files come from the disk
        rounds: list[dict[str, Any]] = [
            {"round": number, "served": served(model, core), "bare": bare(model, core)}
            for number in range(options.rounds)
        ]
    middle = {
        f"{who}_{what}": median(point[who][what] for point in rounds)
        for who in ("served", "bare")
        for what in ("pss_mib", "first_answer_s")
    }
    result = {**middle, "pss_beside_the_model_mib": middle["served_pss_mib"] - middle["bare_pss_mib"]}
    record.write_result(options.out, CLAIM, result, rounds)
    print(
        f"memory (PSS): served {result['served_pss_mib']:.1f} MiB, bare session {result['bare_pss_mib']:.1f} MiB, "
        f"beside the model {result['pss_beside_the_model_mib']:.1f} MiB\n"
        f"first right answer: served after {result['served_first_answer_s']:.2f} s, bare session after "
        f"{result['bare_first_answer_s']:.2f} s (medians of {options.rounds})"
    )


if __name__ == "__main__":
    main()

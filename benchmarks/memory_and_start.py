"""Memory beside the model, and time to the first right answer. A part of benchmarks.suite.

Memory: PSS of the serving process after its first answer and after a load of JPEGs, less that of a process with only an
ONNX Runtime session on the same model. Start: from starting the process to its first right answer over HTTP, asked
every 5 ms. One process at a time, so that they share no pages.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.beside import Contender, Results, Settings, our_server, take_turns
from benchmarks.load import drive
from benchmarks.peers.cases import CASES
from benchmarks.tables import BARE, OURS

CLAIM = "Memory beside the model, at first and after a load of JPEGs, and the time to the first right answer"
CASE = "jpeg220_u8"
POLL_S = 0.005
CLIENTS = 32


@dataclass(frozen=True, slots=True)
class Started(Contender):
    """Our server, started anew in each round."""

    name: str
    rounds: int
    settings: Settings
    seconds: int

    def measure(self) -> Iterator[dict[str, Any]]:
        server, request = our_server(OURS, harness.ROOT, CASE, CASES[CASE], self.settings.work)
        _, core = harness.two_cores()
        with server:
            first_answer_s = server.wait_for([request], POLL_S)
            first_mib = server.tree.pss_mib()
            drive(request, CLIENTS, self.seconds, core)
            request.check()
            yield {
                "first_answer_s": first_answer_s,
                "first_pss_mib": first_mib,
                "loaded_pss_mib": server.tree.pss_mib(),
            }


@dataclass(frozen=True, slots=True)
class Held(Contender):
    """A bare session that has answered once."""

    name: str
    rounds: int
    model: Path

    def measure(self) -> Iterator[dict[str, Any]]:
        core, _ = harness.two_cores()
        with harness.Server(BARE, harness.module_command("bare_session", "hold", self.model), core) as session:
            while "{}" not in session.words():
                if session.process.poll() is not None or time.perf_counter() - session.started > harness.START_S:
                    raise harness.ServerFailed(f"{BARE} did not answer: {session.words()}")
                time.sleep(POLL_S)
            took_s = time.perf_counter() - session.started
            yield {"first_answer_s": took_s, "first_pss_mib": session.tree.pss_mib()}


def memory_and_start(settings: Settings) -> bool:
    rounds, seconds = settings.rounds_of(3), settings.seconds_of(4)
    model = settings.work / "models" / f"{CASES[CASE].model}.onnx"
    out = Results(settings.results / "memory_and_start.jsonl", CLAIM, settings, case="memory_and_start")
    list(Started(OURS, 1, settings, 1).measure())  # not counted: the files come from the disk
    return not take_turns([Started(OURS, rounds, settings, seconds), Held(BARE, rounds, model)], rounds, out)

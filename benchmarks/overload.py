"""Goodput when more arrives than can be answered: open-loop load with a deadline. Parts of benchmarks.suite.

A server's capacity is its rate with CLIENTS closed-loop clients, measured in the same round. Then requests arrive at
multiples of it, each with a deadline of 100 ms, in `x-accelserve-timeout-ms` and in the client's own clock. Last, at
the rate of the capacity or more, all with a deadline that nobody can meet: what a refusal costs.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import harness, models
from benchmarks.beside import Contender, Results, Settings, our_server, peer_server, take_turns
from benchmarks.growth import tiny_request
from benchmarks.load import Request, drive, pinned
from benchmarks.peers.cases import CASES
from benchmarks.peers.catalog import environment_of
from benchmarks.processes import children_s, machine_busy_s
from benchmarks.tables import OURS

LOADS = (0.5, 1.0, 1.5, 2.0, 3.0)
CLIENTS = 32
DEADLINE_MS = 100
HOPELESS_MS = 1  # less than any run takes: all are refused, and what the server does is refusing
HOPELESS_RPS = 500  # at least: of few refusals, what the server does when idle, some 10 ms a second, is the most
RUN_MS, BATCH = 5.0, 8
PEERS = ("mosec_tuned",)
CLAIMS = {
    "overload": "What is answered in time, of a device's capacity, when up to three times as much arrives, all with "
    "deadlines of 100 ms",
    "overload_resnet50": "The same with ResNet-50 on the CPU that also serves, from JPEGs",
}


@dataclass(frozen=True, slots=True)
class Flooded(Contender):
    """A server under closed-loop load for its capacity, then under each of LOADS. seconds: of each."""

    name: str
    rounds: int
    server: harness.Server
    request: Request
    seconds: int

    def measure(self) -> Iterator[dict[str, Any]]:
        _, core = harness.two_cores()
        self.server.pin()
        drive(self.request, CLIENTS, 1, core, patient=True)
        capacity = harness.measured(
            self.server, self.request, lambda: drive(self.request, CLIENTS, self.seconds, core, patient=True)
        )
        yield {"load": 0, **harness.flat(capacity)}
        for load in LOADS:
            yield {"load": load, "capacity_rps": capacity.load.rps, **self._flood(load * capacity.load.rps, core)}

        hopeless = self._flood(max(capacity.load.rps, HOPELESS_RPS), core, HOPELESS_MS)
        if hopeless["refused"]:
            yield {"hopeless": True, "refusal_cpu_us": 1e6 * hopeless["server_cpu_s"] / hopeless["refused"], **hopeless}

    def _flood(self, rate: float, core: int, deadline_ms: int = DEADLINE_MS) -> dict[str, Any]:
        self.request.check()
        cpu, busy, generator = self.server.tree.cpu_s(), machine_busy_s(), children_s()
        began = perf_counter()
        seen = open_loop(self.request, rate, self.seconds, core, deadline_ms)
        wall = perf_counter() - began
        cpu, generator = self.server.tree.cpu_s() - cpu, children_s() - generator
        foreign = max(0.0, (machine_busy_s() - busy - cpu - generator) / wall)
        return {**seen, "server_cpu_s": cpu, "foreign_cpus": foreign}


def open_loop(request: Request, rate: float, seconds: float, core: int, deadline_ms: int) -> dict[str, Any]:
    """What open_loop.py prints."""
    with tempfile.NamedTemporaryFile() as body:
        body.write(request.body)
        body.flush()
        words = (request.url, body.name, request.content_type, rate, seconds, deadline_ms)
        command = pinned(core, [sys.executable, "-m", "benchmarks.open_loop", *map(str, words)])
        done = subprocess.run(
            command, cwd=harness.ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 60
        )
    if done.returncode:
        raise OSError(f"open_loop ended with {done.returncode}: {done.stderr[-300:]}")
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def overload(settings: Settings) -> bool:
    """A device that takes 5 ms for a batch of up to 8, whatever the CPU does."""
    rounds, seconds = settings.rounds_of(3), settings.seconds_of(4)
    core, _ = harness.two_cores()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = models.build_synthetic(folder, "device", RUN_MS, BATCH)
        port = harness.free_port()
        command = harness.accelserve_command({"device": model}, port, harness.free_port(), ())
        server = stack.enter_context(harness.Server(OURS, command, core))
        request = replace(
            tiny_request(f"http://127.0.0.1:{port}/v1/models/device:predict"), expected=tuple(models.TINY_ROW)
        )
        server.wait_for([request])
        return _measured("overload", settings, [Flooded(OURS, rounds, server, request, seconds)], rounds)


def overload_resnet50(settings: Settings) -> bool:
    rounds, seconds = settings.rounds_of(2), settings.seconds_of(5)
    name = "resnet50_u8"
    case = CASES[name]
    with ExitStack() as stack:
        contenders = []
        for who in (OURS, *(() if settings.quick else PEERS)):
            if environment_of(who) in settings.left_out:
                continue
            own = who == OURS
            start = (
                our_server(who, harness.ROOT, name, case, settings.work)
                if own
                else peer_server(who, name, case, settings.work)
            )
            server, request = start
            stack.enter_context(server).wait_for([request])
            contenders.append(Flooded(who, rounds if own else 1, server, request, seconds))
        return _measured("overload_resnet50", settings, contenders, rounds)


def _measured(name: str, settings: Settings, contenders: Sequence[Contender], rounds: int) -> bool:
    out = Results(settings.results / f"{name}.jsonl", CLAIMS[name], settings, case=name, deadline_ms=DEADLINE_MS)
    return OURS not in take_turns(contenders, rounds, out)

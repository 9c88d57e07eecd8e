"""Where each microsecond of a request goes: samples of the server under load. A part of benchmarks.suite.

Three sources. /proc: what a request costs, and the kernel's share. perf: who is on the CPU, by library and system call.
py-spy: Python's stacks, which divide the interpreter's share among our modules; a thread that waits for a core looks as
if it ran, so where perf may be used it is perf that tells how long a library takes. Both slow the server down, so the
cost is measured before, without them. What is missing or may not be used is named in the result.
"""

import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks import harness, record
from benchmarks.beside import Contender, Results, Settings, our_server, take_turns
from benchmarks.load import Request, drive
from benchmarks.peers.cases import CASES
from benchmarks.processes import Code
from benchmarks.stacks import by_stage, divided, folded, read_perf, read_stacks, without_waiting
from benchmarks.tables import OURS

CLAIM = "Where the CPU time of a request goes"
PROFILED = {"tiny": 32, "jpeg220_u8": 32, "raw_600k": 8, "grpc_1k": 32}  # case -> clients
SAMPLES_PER_S = 250
PERF_SAMPLES_PER_S = 2000
EVENTS = ("cpu-clock", "cpu-clock:u")  # the second is open to all users where the first is not


class NoTool(Exception):
    """Says which tool cannot be used, and why."""


@dataclass(frozen=True, slots=True)
class Profiled(Contender):
    """Our server under the load of one case: its cost, then who is on the CPU, then its stacks."""

    name: str
    rounds: int
    case: str
    settings: Settings
    seconds: int

    def measure(self) -> Iterator[dict[str, Any]]:
        server, request = our_server(OURS, harness.ROOT, self.case, CASES[self.case], self.settings.work)
        _, core = harness.two_cores()
        clients = PROFILED[self.case]
        with server, tempfile.TemporaryDirectory() as name:
            server.wait_for([request])
            user_s, system_s = server.tree.user_and_system_s()
            point = harness.measure(server, request, clients, self.seconds, core)
            user_end_s, system_end_s = server.tree.user_and_system_s()
            in_kernel = (system_end_s - system_s) / (user_end_s + system_end_s - user_s - system_s)
            yield {"clients": clients, **harness.flat(point), "kernel_share": in_kernel}
            found: list[Counter[str]] = []
            for tool in (py_spy, perf):
                try:
                    found.append(under_load(request, clients, core, self.seconds, tool, server, Path(name)))
                except NoTool as error:
                    found.append(Counter())
                    yield {"no_tool": record.without_places(str(error))}
        stacks, sampled = found
        shares = divided(stacks, sampled, in_kernel)
        for stage, parts in by_stage(shares).items():
            for part, share in parts.items():
                yield {"stage": stage, "part": part, "share": share, "us": share * point.cpu_us}
        lines = sorted(f"{stack} {ns}" for stack, ns in folded(stacks, shares, point.cpu_us).items() if ns)
        (self.settings.results / f"profile_{self.case}.folded").write_text("\n".join(lines) + "\n")


def profile(settings: Settings) -> bool:
    out = Results(settings.results / "profile.jsonl", CLAIM, settings, case="profile")
    cases = ["tiny"] if settings.quick else list(PROFILED)
    contenders = [Profiled(f"{OURS}, {case}", 1, case, settings, settings.seconds_of(6)) for case in cases]
    return not take_turns(contenders, 1, out)


def under_load(
    request: Request,
    clients: int,
    core: int,
    seconds: int,
    tool: Callable[[harness.Server, Path, int], Counter[str]],
    server: harness.Server,
    folder: Path,
) -> Counter[str]:
    load = Thread(target=drive, args=(request, clients, seconds + 3, core))
    load.start()
    try:
        return tool(server, folder, seconds)
    finally:
        load.join()


def py_spy(server: harness.Server, folder: Path, seconds: int) -> Counter[str]:
    """Stacks of threads that do not wait. Raises NoTool."""
    tool = Path(sys.executable).with_name("py-spy")
    if not tool.exists():
        raise NoTool("py-spy is missing, so the interpreter's part is not divided")
    raw = folder / "stacks"
    options = ["--native", "--nolineno", "-r", str(SAMPLES_PER_S), "-d", str(seconds), "-f", "raw", "-o", str(raw)]
    command = [str(tool), "record", *options, "-p", str(server.process.pid)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode or not raw.exists():
        raise NoTool(f"py-spy may not look into the server: {done.stderr.strip()[-200:]}")
    return without_waiting(read_stacks(raw.read_text()), Code(server.process.pid).behind_system_call)


def perf(server: harness.Server, folder: Path, seconds: int) -> Counter[str]:
    """Samples by part. Raises NoTool."""
    if not shutil.which("perf"):
        raise NoTool("perf is missing, so the shares are py-spy's, and the kernel's part is not divided")
    data = folder / "perf.data"
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True}
    for event in EVENTS:
        options = ["-q", "-e", event, "-F", str(PERF_SAMPLES_PER_S), "-g", "-o", str(data)]
        command = ["perf", "record", *options, "-p", str(server.process.pid), "--", "sleep", str(seconds)]
        if subprocess.run(command, stdout=subprocess.DEVNULL, timeout=seconds + 60, **quiet).returncode == 0:
            script = ["perf", "script", "-i", str(data), "-F", "ip,sym,dso"]
            return read_perf(subprocess.run(script, stdout=subprocess.PIPE, timeout=120, **quiet).stdout)
    raise NoTool("perf may not be used here, so the shares are py-spy's, and the kernel's part is not divided")

"""Where each microsecond of a request goes: samples of the server's stacks under load. A part of benchmarks.suite.

Three sources: /proc says what a request costs and how much of it is the kernel's; py-spy (--native) divides the rest
among libraries, and the interpreter's part among our modules; perf, where it may be used, divides the kernel's part by
system call. py-spy stops the server for each sample, so the cost is measured before, without it.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks import harness
from benchmarks.beside import Contender, Results, Settings, our_server, take_turns
from benchmarks.load import Request, drive
from benchmarks.peers.cases import CASES
from benchmarks.tables import OURS

CLAIM = "Where the CPU time of a request goes"
PROFILED = {"tiny": 32, "jpeg220_u8": 32, "raw_600k": 8, "grpc_1k": 32}  # case -> clients
SAMPLES_PER_S = 250
PERF_SAMPLES_PER_S = 2000
KERNEL = "kernel"
WAITING = "waiting"
COLLECTOR = "garbage collector"
INTERPRETER = "interpreter, outside any function"
FRAME = re.compile(r"(.*) \((.*?)(?::\d+)?\)$")
SYSTEM_CALLS = re.compile(
    r"_*(?:libc_)?(send|sendto|sendmsg|write|writev|recv|recvfrom|recvmsg|read|readv|epoll_ctl|accept4?|getrandom|getpid)$"
)
WAITS = re.compile(
    r"_*(epoll_p?wait2?|poll|select|sem_.*wait.*|sem_post|pthread_cond_.*|PyThread_acquire_lock.*|take_gil|drop_gil|"
    r"(clock_)?nanosleep|syscall)$"
)
ENTERED = re.compile(r"\b(?:(?:__x64|__arm64|__do|k|_)_?sys_(\w+)|do_(epoll_wait|futex))\b")
LIBRARIES = (  # the first that matches a frame's file names the part
    ("onnxruntime", re.compile(r"onnxruntime")),
    ("numpy", re.compile(r"numpy|_multiarray")),
    ("orjson", re.compile(r"orjson")),
    ("simdjson", re.compile(r"simdjson")),
    ("httptools", re.compile(r"httptools|^parser\.c$|^(parser|url_parser)\.cpython|llhttp|url_parser\.c")),
    (
        "uvloop",
        re.compile(r"uvloop|^loop\.(c|cpython)|^(core|stream|linux|epoll|tcp|async|timer|queue|loop-watcher)\.[ch]$"),
    ),
    ("simplejpeg", re.compile(r"simplejpeg|_jpeg\.|turbojpeg")),
    ("OpenCV", re.compile(r"cv2")),
    ("grpcio", re.compile(r"cygrpc|grpc")),
    ("protobuf", re.compile(r"_message\.abi3|google/(_upb|protobuf)")),
    ("prometheus-client", re.compile(r"prometheus_client")),
)


@dataclass(frozen=True, slots=True)
class Profiled(Contender):
    """Our server under the load of one case: its cost, then its stacks, then the kernel's."""

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
            stacks = under_load(request, clients, core, self.seconds, lambda: py_spy(server, Path(name), self.seconds))
            calls = under_load(request, clients, core, self.seconds, lambda: perf(server, Path(name), self.seconds))
            yield {"clients": clients, **harness.flat(point), "kernel_share": in_kernel}
            for part, share in divided(stacks, calls, in_kernel):
                yield {"part": part, "share": share, "us": share * point.cpu_us}


def profile(settings: Settings) -> bool:
    """Raises nothing: where py-spy is missing or may not look into the server, the result says so."""
    out = Results(settings.results / "profile.jsonl", CLAIM, settings, case="profile")
    cases = ["tiny"] if settings.quick else list(PROFILED)
    contenders = [Profiled(f"{OURS}, {case}", 1, case, settings, settings.seconds_of(6)) for case in cases]
    take_turns(contenders, 1, out)
    return True


def under_load(
    request: Request, clients: int, core: int, seconds: int, look: Callable[[], Counter[str]]
) -> Counter[str]:
    load = Thread(target=drive, args=(request, clients, seconds + 3, core))
    load.start()
    try:
        return look()
    finally:
        load.join()


def py_spy(server: harness.Server, folder: Path, seconds: int) -> Counter[str]:
    """Stacks, outermost frame first, with ";" between frames. Raises ServerFailed if it cannot be had."""
    tool = Path(sys.executable).with_name("py-spy")
    if not tool.exists():
        raise harness.ServerFailed("no profile: py-spy is missing")
    raw = folder / "stacks"
    options = ["--native", "--nolineno", "-r", str(SAMPLES_PER_S), "-d", str(seconds), "-f", "raw", "-o", str(raw)]
    command = [str(tool), "record", *options, "-p", str(server.process.pid)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode or not raw.exists():
        raise harness.ServerFailed(f"no profile: py-spy may not look into the server: {done.stderr[-300:]}")
    return read_stacks(raw.read_text())


def read_stacks(text: str) -> Counter[str]:
    stacks: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        stacks[stack] += int(count)
    return stacks


def perf(server: harness.Server, folder: Path, seconds: int) -> Counter[str]:
    """Samples in the kernel by system call; empty where perf is missing or may not be used."""
    if not shutil.which("perf"):
        return Counter()
    data = folder / "perf.data"
    record = ["perf", "record", "-q", "-e", "cpu-clock:k", "-F", str(PERF_SAMPLES_PER_S), "-g", "-o", str(data)]
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "text": True}
    done = subprocess.run(
        [*record, "-p", str(server.process.pid), "--", "sleep", str(seconds)], stdout=subprocess.DEVNULL, **quiet
    )
    if done.returncode:
        return Counter()
    script = subprocess.run(["perf", "script", "-i", str(data), "-F", "ip,sym"], stdout=subprocess.PIPE, **quiet)
    return read_calls(script.stdout)


def read_calls(script: str) -> Counter[str]:
    """Of perf's stacks (blank lines between them) the system call, or what else brought it into the kernel."""
    calls: Counter[str] = Counter()
    for stack in filter(None, map(str.strip, script.split("\n\n"))):
        found = ENTERED.search(stack)
        calls[
            (found[1] or found[2]).replace("pwait", "wait")
            if found
            else "page faults"
            if "page_fault" in stack
            else "interrupts"
        ] += 1
    return calls


def divided(stacks: Counter[str], calls: Counter[str], in_kernel: float) -> Iterator[tuple[str, float]]:
    """(part, share of the CPU time), the kernel's first. User time goes by py-spy's samples outside system calls."""
    yield from kernel_parts(calls, in_kernel)
    parts: Counter[str] = Counter()
    for stack, count in stacks.items():
        parts[part_of(stack.split(";"))] += count
    for left_out in (KERNEL, WAITING):
        del parts[left_out]
    total = parts.total()
    yield from ((part, (1 - in_kernel) * count / total) for part, count in parts.most_common())


def kernel_parts(calls: Counter[str], in_kernel: float) -> Iterator[tuple[str, float]]:
    if not calls:
        yield KERNEL, in_kernel
    total = calls.total()
    yield from ((f"{KERNEL}: {call}", in_kernel * count / total) for call, count in calls.most_common())


def part_of(stack: Sequence[str]) -> str:
    """Who a stack's time belongs to: the innermost frame that says so, behind unnamed ones of the C library."""
    frames = [found.groups() if (found := FRAME.match(frame)) else (frame, "") for frame in reversed(stack)]
    while len(frames) > 1 and frames[0][0].startswith("0x") and "libc" in frames[0][1]:
        frames.pop(0)
    innermost, of = frames[0]
    if not of.endswith((".py", "string>")):
        if WAITS.match(innermost):
            return WAITING
        if SYSTEM_CALLS.match(innermost):
            return KERNEL
    for name, file in frames:
        if name.startswith("gc_collect"):
            return COLLECTOR
        if part := _part_of_file(file):
            return part
    return INTERPRETER


def _part_of_file(file: str) -> str:
    """A module of ours or of Python's, or a library; "" for the interpreter's own code."""
    if file.startswith("accelserve/"):
        return f"ours: {file.removeprefix('accelserve/').removesuffix('.py')}"
    for library, pattern in LIBRARIES:
        if pattern.search(file):
            return library
    if file.endswith(".py"):
        return f"Python: {file.partition('/')[0].removesuffix('.py')}"
    return ""

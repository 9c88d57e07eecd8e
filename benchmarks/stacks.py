"""Samples of a server to parts, and parts to stages of a request's way; pure."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

KERNEL = "kernel"
WAITING = "waiting"
COLLECTOR = "garbage collector"
INTERPRETER = "interpreter"  # outside of any function of ours or of Python's library
FRAME = re.compile(r"(.*) \((.*?)(?::\d+)?\)$")
UNNAMED = re.compile(r"^0x[0-9a-f]+")
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
STAGES = (  # the first that matches a part
    ("receive and send (kernel)", re.compile(r"kernel: (read|recv|write|send|epoll|accept|poll|shutdown|close)")),
    ("threads, memory, interrupts (kernel)", re.compile(r"kernel")),
    ("event loop and HTTP parser", re.compile(r"uvloop|httptools|Python: (asyncio|uvicorn)")),
    ("gRPC library", re.compile(r"grpcio|protobuf")),
    (
        "pictures: decode, resize, pool",
        re.compile(
            r"simplejpeg|OpenCV|ours: codecs/(images|jpeg|picture|bilinear)|ours: frontends/(pictures|decode_pool)"
        ),
    ),
    ("bodies to tensors, scores to text", re.compile(r"orjson|simdjson|ours: codecs/")),
    ("front end: heads, limits, ids, deadlines", re.compile(r"ours: frontends/")),
    ("scoring: which model, checks, waiting", re.compile(r"ours: (scoring|binding|ticket|messages|tensors|errors)")),
    ("queue, batch, split", re.compile(r"ours: batching/")),
    ("metrics and logs", re.compile(r"ours: observability/|prometheus|Python: logging")),
    ("model", re.compile(r"onnxruntime|ours: (backends|models)/")),
    ("numpy", re.compile(r"numpy")),
    ("copies and malloc (libc)", re.compile(r"libc")),
)
REST = "interpreter and the rest"
LEAST_STAGE = 0.005  # of a request: a smaller stage joins the rest


def read_stacks(text: str) -> Counter[str]:
    """py-spy's: outermost frame first, ";" between frames, then the count."""
    stacks: Counter[str] = Counter()
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        stacks[stack] += int(count)
    return stacks


def without_waiting(stacks: Counter[str], is_system_call: Callable[[int], bool]) -> Counter[str]:
    """Unnamed innermost frames tell by the instruction before their address whether the thread is in the kernel."""

    def waits(frames: Sequence[str]) -> bool:
        innermost = UNNAMED.match(frames[-1])
        return bool(innermost and is_system_call(int(innermost[0], 16))) or part_of(frames) == WAITING

    return Counter({stack: count for stack, count in stacks.items() if not waits(stack.split(";"))})


def read_perf(script: str) -> Counter[str]:
    """Part -> samples, of perf's stacks (innermost frame first, blank lines between them)."""
    return Counter(_part_of_sample(stack) for stack in filter(None, map(str.strip, script.split("\n\n"))))


def _part_of_sample(stack: str) -> str:
    """In the kernel: the system call, or what else brought it there. Else the innermost frame's library."""
    innermost, _, _ = stack.partition("\n")
    file = innermost.rpartition("(")[2].rstrip(")")
    if "[kernel" in file or file.endswith(".ko"):
        found = ENTERED.search(stack)
        if found:
            return f"{KERNEL}: {(found[1] or found[2]).replace('pwait', 'wait')}"
        return f"{KERNEL}: {'page faults' if 'page_fault' in stack else 'interrupts'}"
    name = file.rpartition("/")[2]
    if name.startswith(("libpython", "python")):
        return INTERPRETER
    if name.startswith(("libc.", "libc-", "ld-", "libm.", "[vdso]")):
        return "libc"
    return next(
        (library for library, pattern in LIBRARIES if pattern.search(file) or pattern.search(name)), INTERPRETER
    )


def divided(stacks: Counter[str], sampled: Counter[str], in_kernel: float) -> dict[str, float]:
    """Part -> its share of the CPU time, the largest first.

    sampled: of perf, by part: who was on the CPU. It does not see into the interpreter, whose share is divided by the
    stacks. Without perf the stacks divide everything outside the kernel, which has `in_kernel`.
    """
    python = Counter[str]()
    for stack, count in stacks.items():
        python[part_of(stack.split(";"))] += count
    del python[KERNEL], python[WAITING]
    shares: dict[str, float] = {}
    if not sampled:
        shares[KERNEL] = in_kernel
        shares |= _scaled(python, 1 - in_kernel)
    else:
        outside = sum(count for part, count in sampled.items() if not part.startswith(KERNEL))
        knows_kernel = outside < sampled.total()
        user = 1.0 if knows_kernel else 1 - in_kernel
        shares |= _scaled(sampled, user) | ({} if knows_kernel else {KERNEL: in_kernel})
        own = Counter({part: count for part, count in python.items() if _is_python(part)})
        if own:
            shares |= _scaled(own, shares.pop(INTERPRETER, 0.0))
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _scaled(counts: Counter[str], whole: float) -> dict[str, float]:
    total = counts.total()
    return {part: whole * count / total for part, count in counts.items()}


def _is_python(part: str) -> bool:
    return part.startswith(("ours: ", "Python: ")) or part in (COLLECTOR, INTERPRETER)


def by_stage(shares: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Stage -> part -> share; the largest stage first."""
    stages: dict[str, dict[str, float]] = {}
    for part, share in shares.items():
        stage = next((name for name, pattern in STAGES if pattern.match(part)), REST)
        stages.setdefault(stage, {})[part] = share
    for stage in [name for name, parts in stages.items() if sum(parts.values()) < LEAST_STAGE and name != REST]:
        stages.setdefault(REST, {}).update(stages.pop(stage))
    return dict(sorted(stages.items(), key=lambda item: -sum(item[1].values())))


def part_of(stack: Sequence[str]) -> str:
    """Who a stack's time belongs to: the innermost frame that says so, behind unnamed ones of the C library."""
    frames = [_frame(frame) for frame in reversed(stack)]
    while len(frames) > 1 and UNNAMED.match(frames[0][0]) and "libc" in frames[0][1]:
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


def _frame(text: str) -> tuple[str, str]:
    """(function, file)"""
    found = FRAME.match(text)
    return (found[1], found[2]) if found else (text, "")


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


def folded(stacks: Counter[str], shares: Mapping[str, float], cost_us: float) -> Counter[str]:
    """Stacks of Python's functions with the library at the end, as ns per request; what no stack shows stands alone.

    Each part has what `divided` gives it: a stack of the samples tells who called, not how long.
    """
    seen = Counter[str]()
    for stack, count in stacks.items():
        seen[part_of(stack.split(";"))] += count
    kernel_us = {part: share * cost_us for part, share in shares.items() if part.startswith(KERNEL)}
    found = Counter[str]()
    for stack, count in stacks.items():
        part = part_of(stack.split(";"))
        if part in shares and part != KERNEL:
            found[";".join(_readable(stack.split(";"), part))] += round(
                1e3 * shares[part] * cost_us * count / seen[part]
            )
    alone = {part: share * cost_us for part, share in shares.items() if part not in seen} | kernel_us
    return found + Counter({part: round(1e3 * us) for part, us in alone.items()})


def part_of_folded(frame: str) -> str:
    """The part of one frame of a folded stack."""
    name, file = _frame(frame)
    return _part_of_file(file) if file else name


def _readable(stack: Sequence[str], part: str) -> Iterator[str]:
    """Functions in Python, once where they call themselves, and the library that they called."""
    frames = [f"{name} ({file})" for name, file in map(_frame, stack) if file.endswith(".py")]
    yield from (frame for frame, after in pairwise([*frames, ""]) if frame != after)
    if not _is_python(part) or part == COLLECTOR or not frames:
        yield part

"""How much is measured: sizes for a GPU, small ones for a dry run on the CPU."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ALL_MODELS = ("tiny", "mlp", "digits", "two_in_two_out", "free_width", "fp16_io", "resnet50", "resnet50_u8")


@dataclass(frozen=True, slots=True)
class Plan:
    """What the sections are told.

    folder: for models and caches. seconds: of load per served point; in-process points take `timing_s`.
    models: of the correctness section. mixed_requests: through the scheduler, for each of mixed_models and its ways.
    server_cores, load_cores: never share a core.
    """

    device: str
    folder: Path
    seconds: float
    rounds: int
    models: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    clients: tuple[int, ...]
    mixed_models: tuple[str, ...]
    mixed_requests: int
    memory_requests: int
    server_cores: tuple[int, ...]
    load_cores: tuple[int, ...]

    @property
    def dry_run(self) -> bool:
        return self.device == "cpu"

    @property
    def timing_s(self) -> float:
        return self.seconds / 8

    @property
    def most_rows(self) -> int:
        return self.batch_sizes[-1]

    @property
    def decode_threads(self) -> int:
        """What the server takes where nothing is said."""
        return max(1, len(self.server_cores) - 1)


def gpu_plan(folder: Path, device: str, cores: tuple[int, ...]) -> Plan:
    server, load = split(cores)
    return Plan(
        device, folder, 4.0, 2, ALL_MODELS, (1, 2, 4, 8, 16, 32, 64), (1, 8, 32, 128),
        ("tiny", "resnet50_u8"), 3_000, 2_000, server, load,
    )  # fmt: skip


def dry_plan(folder: Path, cores: tuple[int, ...]) -> Plan:
    """Every line of code that a CPU can run, once."""
    server, load = split(cores)
    return Plan(
        "cpu", folder, 2.0, 1, ALL_MODELS, (1, 4), (1, 8), ("tiny", "resnet50_u8"), 60, 40, server, load
    )  # fmt: skip


def split(cores: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Half of the cores for the server, half for the load; one core is for both."""
    half = max(1, len(cores) // 2)
    return cores[:half], cores[half:] or cores


def usable_cores() -> tuple[int, ...]:
    return tuple(sorted(os.sched_getaffinity(0)))


@contextmanager
def on_cores(cores: Sequence[int]) -> Iterator[None]:
    """This thread, and those that it starts meanwhile, on the server's cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)

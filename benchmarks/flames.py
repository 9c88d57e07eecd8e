"""Flame graphs (PNG) of the profile's folded stacks: who called whom, as wide as it takes of a request."""

import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.stacks import part_of_folded, read_stacks
from benchmarks.tables import Result

WIDTH = 14.0  # inches
NARROW = 0.002  # of the whole: narrower frames are left out
LETTERS = 215  # that fit into the whole width
COLOURS = {"ours": ("#d55e00", "#e69f00"), "Python": ("#0072b2", "#56b4e9"), "": ("#8c96a3", "#b9c0c8")}


@dataclass(frozen=True, slots=True)
class Frame:
    """A function: how deep it stands, from where and how far it reaches (ns per request)."""

    name: str
    depth: int
    start: int
    width: int


def flames(profile: Result, folder: Path) -> list[Path]:
    """One picture for each folded file beside the profile's results."""
    servers = dict.fromkeys(point["server"] for point in profile.points)
    cases = [server.partition(", ")[2] for server in servers]
    stacks = {case: profile.folder / f"profile_{case}.folded" for case in cases}
    return [_draw(case, path, folder / f"flames_{case}.png") for case, path in stacks.items() if path.exists()]


def frames(stacks: Counter[str]) -> Iterator[Frame]:
    """Of stacks with the outermost frame first; neighbours with the same frames above them are one."""
    open_frames: list[tuple[str, int]] = []  # name, start
    at = 0
    for stack, ns in [*sorted(stacks.items()), ("", 0)]:
        names = stack.split(";") if stack else []
        same = 0
        while same < min(len(names), len(open_frames)) and names[same] == open_frames[same][0]:
            same += 1
        while len(open_frames) > same:
            name, start = open_frames.pop()
            yield Frame(name, len(open_frames), start, at - start)
        open_frames += [(name, at) for name in names[same:]]
        at += ns


def _draw(case: str, path: Path, out: Path) -> Path:
    stacks = read_stacks(path.read_text())
    whole = stacks.total()
    drawn = [frame for frame in frames(stacks) if frame.width >= NARROW * whole]
    depth = max(frame.depth for frame in drawn)
    figure, axes = plt.subplots(figsize=(WIDTH, 1.2 + 0.2 * (depth + 1)))
    for frame in drawn:
        axes.barh(frame.depth, frame.width, left=frame.start, height=0.94, color=_colour(frame.name), edgecolor="white",
                  linewidth=0.4)  # fmt: skip
        room = int(LETTERS * frame.width / whole) - 1
        if room > 3:
            axes.text(frame.start + 0.003 * whole, frame.depth, _shortened(frame.name, room), va="center", fontsize=6.5)
    axes.set(
        xlim=(0, whole), ylim=(-0.5, depth + 0.5), yticks=[],
        title=f"{case}: {whole / 1e3:.1f} µs of CPU per request (orange: ours, blue: Python, grey: libraries, kernel)",
    )  # fmt: skip
    axes.xaxis.set_major_formatter(lambda ns, _: f"{ns / 1e3:g} µs")
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, dpi=110, metadata={"Software": None})
    plt.close(figure)
    return out


def _colour(name: str) -> str:
    """One of two shades, so that neighbours are told apart."""
    part = part_of_folded(name)
    shades = COLOURS.get(part.partition(":")[0], COLOURS[""])
    return shades[zlib.crc32(name.encode()) % 2]


def _shortened(name: str, room: int) -> str:
    text = name.partition(" (")[0]
    return text if len(text) <= room else text[: room - 1] + "…"

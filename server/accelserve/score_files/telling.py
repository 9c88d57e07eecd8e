"""What is printed of the outcomes: lines for people, JSON for programs."""

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from accelserve.score_files.results import Failed, Outcome, Place, Scored, Spent

_SHOWN_ANSWER = 200  # characters of an answer that cannot be ranked
_PARTS = ("queue", "decode", "compute", "network", "total")


@dataclass
class Tally:
    """Counts and times so far. Of a refused file no times are kept."""

    scored: int = 0
    failed: int = 0
    spent: list[Spent] = field(default_factory=list)
    devices: set[str] = field(default_factory=set)
    classes: set[int] = field(default_factory=set)

    def add(self, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            self.failed += 1
            return
        self.scored += 1
        self.spent.append(outcome.spent)
        if outcome.device:
            self.devices.add(outcome.device)
        if outcome.classes is not None:
            self.classes.add(outcome.classes)


def outcome_lines(outcome: Outcome) -> Iterator[str]:
    """The file, and below it its best classes; in one line where there is one."""
    name = shown(outcome.path)
    if isinstance(outcome, Failed):
        yield f"{name}: {shown(outcome.status)}: {shown(outcome.message)}"
    elif outcome.best is None:
        yield f"{name}: {_cut(_text_of(outcome.answer))}"
    elif len(outcome.best) == 1:
        yield f"{name}: {_place(outcome.best[0])}"
    else:
        yield f"{name}:"
        yield from (f"  {rank}  {_place(place)}" for rank, place in enumerate(outcome.best, 1))


def _place(place: Place) -> str:
    return f"{place.score:<10.6g}  {place.index:>4}  {shown(place.label or '')}".rstrip()


def _text_of(answer: Any) -> str:
    return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


def _cut(text: str) -> str:
    text = shown(text)
    return text if len(text) <= _SHOWN_ANSWER else f"{text[:_SHOWN_ANSWER]}... ({len(text)} characters)"


def shown(what: str | Path) -> str:
    """On one line of any terminal: what is no printable text is spelled out."""
    text = str(what)
    return text if text.isprintable() else "".join(map(_spelled, text))


def _spelled(letter: str) -> str:
    """A byte of a file's name that is no text is half a surrogate pair in Python; so is what JSON says as \\ud800."""
    if letter.isprintable():
        return letter
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def summary_lines(tally: Tally, asked: int, seconds: float) -> Iterator[str]:
    """asked: how many files there were; some may not have been tried."""
    left = asked - tally.scored - tally.failed
    told = f"{asked} file{'s' * (asked != 1)}: {tally.scored} scored, {tally.failed} failed" + (
        f", {left} not tried" if left else ""
    )
    rate = f", {tally.scored / seconds:.1f} files/s" if seconds > 0 and tally.scored else ""
    yield f"{told}, {seconds:.1f} s{rate}"
    if tally.devices:
        yield f"computed by    {', '.join(sorted(map(shown, tally.devices)))}"
    if tally.spent:
        yield "latency in ms  " + "".join(f"{part:>10}" for part in _PARTS)
        rows = (("median", 0.5), ("p99", 0.99), ("most", 1.0)) if len(tally.spent) > 1 else (("", 1.0),)
        for name, share in rows:
            yield f"  {name:<13}" + "".join(f"{_cell(tally.spent, part, share):>10}" for part in _PARTS)


def labels_problem(tally: Tally, labels: int) -> str:
    """What is wrong with so many labels, "" where nothing shows: one too few, and every name may be the next one's."""
    others = sorted(tally.classes - {labels})
    if not labels or not others:
        return ""
    counts = " or ".join(map(str, others))
    return f"--labels names {labels} classes, and the answers have {counts}: do they belong together?"


def _cell(spent: Sequence[Spent], part: str, share: float) -> str:
    value = quantile([number for one in spent if (number := getattr(one, f"{part}_ms")) is not None], share)
    return "-" if value is None else f"{value:.2f}"


def quantile(numbers: Sequence[float], share: float) -> float | None:
    """The number that `share` of all do not exceed; None of none."""
    if not numbers:
        return None
    return sorted(numbers)[max(0, math.ceil(share * len(numbers)) - 1)]


class JsonFiles:
    """One JSON object, written as the outcomes come, so that none of them has to be kept; whole after `end`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._before = '{\n  "files": ['

    def add(self, outcome: Outcome) -> None:
        self._stream.write(f"{self._before}\n{_indented(outcome_json(outcome), 4)}")
        self._before = ","

    def end(self, summary: Mapping[str, Any]) -> None:
        closed = "\n  ]" if self._before == "," else f"{self._before}]"
        self._stream.write(f'{closed},\n  "summary": {_indented(summary, 2).lstrip()}\n}}\n')


def _indented(document: Mapping[str, Any], spaces: int) -> str:
    return textwrap.indent(json.dumps(document, indent=2), " " * spaces)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome, Failed):
        return {"file": str(outcome.path), "ok": False, "status": outcome.status, "error": outcome.message}
    return {"file": str(outcome.path), "ok": True, **_answer_json(outcome), "latency_ms": _spent_json(outcome.spent)}


def _answer_json(scored: Scored) -> dict[str, Any]:
    device = {"device": scored.device} if scored.device else {}
    if scored.best is None:
        return {"answer": _finite(scored.answer), **device}
    best = [{"index": place.index, "label": place.label, "score": _finite(place.score)} for place in scored.best]
    return {"top": best, **device}


def _spent_json(spent: Spent) -> dict[str, float | None]:
    times = ((part, getattr(spent, f"{part}_ms")) for part in _PARTS)
    return {part: None if value is None else round(value, 3) for part, value in times}


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return {key: _finite(item) for key, item in value.items()} if isinstance(value, dict) else value


def summary_json(tally: Tally, asked: int, seconds: float) -> dict[str, Any]:
    latency = {
        name: {part: _quantile_json(tally.spent, part, share) for part in _PARTS}
        for name, share in (("median", 0.5), ("p99", 0.99))
    }
    counts = {"files": asked, "scored": tally.scored, "failed": tally.failed, "seconds": round(seconds, 3)}
    return {**counts, "devices": sorted(tally.devices), "latency_ms": latency if tally.spent else None}


def _quantile_json(spent: Sequence[Spent], part: str, share: float) -> float | None:
    value = quantile([number for one in spent if (number := getattr(one, f"{part}_ms")) is not None], share)
    return None if value is None else round(value, 3)

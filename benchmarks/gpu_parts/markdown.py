"""A record as Markdown tables. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.gpu_parts.results import SKIPPED

HIDDEN = "rounds"  # every round is in the JSON


def render(record: Mapping[str, Any]) -> str:
    return "\n".join(_lines(record)) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Columns in the order in which the rows bring them; what a row was skipped for stands in the last."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key not in (HIDDEN, SKIPPED)))
    if any(SKIPPED in row for row in rows):
        columns.append(SKIPPED)
    body = [[_cell(key, row.get(key, "")) for key in columns] for row in rows]
    heads = [key.replace("_", " ") for key in columns]
    return [_line(heads), _line(["---"] * len(columns)), *map(_line, body)]


def _lines(record: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"# {record['claim']}", "", f"**{record['label']}**", "")
    yield from table([{"what": what, "value": value} for what, value in _facts(record)])
    yield from ("", "## Goals", "")
    yield from table(record["goals"])
    if record["ratios"]:
        yield from ("", "## Served, of what the process could do", "")
        yield from table(record["ratios"])
    for name, section in record["sections"].items():
        yield from ("", f"## {name}", "", _origin(section))
        if not section["complete"]:
            yield from ("", "**Not complete: it was ended, by a time limit or an error, before its last row.**")
        for title, rows in section["tables"].items():
            yield from ("", f"### {title}", "")
            yield from table(rows)


def _facts(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield from (("command", f"`{record['command']}`"), ("date", record["date"]), ("commit", record["commit"]))
    for part in ("device", "machine", "versions"):
        yield part, ", ".join(f"{key} {_plain(value)}" for key, value in record[part].items())


def _origin(section: Mapping[str, Any]) -> str:
    took = f", {section['took_s']:g} s" if "took_s" in section else ""
    return f"`{section['command']}`, commit {section['commit']}, {section['date']}, {section['device']}{took}"


def _cell(key: str, value: Any) -> str:
    text = f"skipped: {value}" if key == SKIPPED and value else _plain(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    if isinstance(value, (list, tuple)):
        return " ".join(map(_plain, value))
    if isinstance(value, dict):
        return " ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    return "" if value is None else str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

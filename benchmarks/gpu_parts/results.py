"""What a section found, as rows of tables; the record that they are kept in. Pure, but for the clock's date."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DRY_RUN_LABEL = "dry run on CPU, no GPU figure"
GPU_LABEL = "measured on a GPU"
SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. values: column -> what was found; "skipped": why there is nothing."""

    table: str
    values: Mapping[str, Any]


def skipped(table: str, reason: str, **what: Any) -> Row:
    """A row that says why it is empty: what cannot be had is never left out."""
    return Row(table, {**what, SKIPPED: reason})


def new_section(command: str, commit: str, date: str, device: str) -> dict[str, Any]:
    """A section that has begun; it is complete when `finished` has said so. device: the name of the GPU, or the CPU."""
    return {"command": command, "commit": commit, "date": date, "device": device, "complete": False, "tables": {}}


def add_row(section: dict[str, Any], row: Row) -> None:
    values = {key: _storable(value) for key, value in row.values.items()}
    section["tables"].setdefault(row.table, []).append(values)


def _storable(value: Any) -> Any:
    """JSON has no infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def finished(section: dict[str, Any], took_s: float) -> None:
    section["complete"] = True
    section["took_s"] = round(took_s, 1)


def rows_of(sections: Mapping[str, Any], section: str, table: str) -> list[dict[str, Any]]:
    """A table's rows that hold something; empty where the section was not run."""
    rows: Sequence[dict[str, Any]] = sections.get(section, {}).get("tables", {}).get(table, [])
    return [row for row in rows if SKIPPED not in row]


def merged(earlier: Mapping[str, Any] | None, record: Mapping[str, Any]) -> dict[str, Any]:
    """The record with the sections of an earlier one that it does not have; another label's are not taken."""
    if earlier is None or earlier.get("label") != record["label"]:
        return dict(record)
    return {**record, "sections": {**earlier.get("sections", {}), **record["sections"]}}


def problems(record: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a record's form, for tests and readers."""
    for key in (
        "claim",
        "command",
        "date",
        "commit",
        "label",
        "machine",
        "device",
        "versions",
        "goals",
        "ratios",
        "sections",
    ):
        if key not in record:
            yield f"the record has no {key!r}"
    for name, section in record.get("sections", {}).items():
        for key in ("command", "commit", "date", "device", "complete", "tables"):
            if key not in section:
                yield f"section {name} has no {key!r}"
        for table, rows in section.get("tables", {}).items():
            yield from (f"{name}, {table}: an empty row" for row in rows if not row)

"""What the commands tell of registered models, for people: tables and records."""

from collections.abc import Iterator, Mapping, Sequence

from accelserve.inspection import signature_lines
from accelserve.models.store import StoredModel, readable_bytes

_HEAD = ("NAME", "VERSION", "FRAMEWORK", "FORMAT", "SIZE", "CREATED", "TAGS", "PARENT")
_UNKNOWN = "unknown: the model was not loaded when it was registered"


def table(models: Sequence[StoredModel]) -> str:
    return aligned([_HEAD, *(_row(model) for model in models)])


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of as many words each, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _row(model: StoredModel) -> tuple[str, ...]:
    return (
        model.name,
        str(model.version),
        _framework(model),
        model.format,
        readable_bytes(model.size_bytes),
        _day(model.created_time),
        _pairs(model.tags),
        model.parent or "-",
    )


def record_lines(model: StoredModel, users: Sequence[str]) -> Iterator[str]:
    """One version. users: who refers to it, in words."""
    yield f"{model.reference} registered {_day(model.created_time)} UTC"
    yield f"folder         {model.path}"
    yield f"content        {model.format}, {readable_bytes(model.size_bytes)}, sha256 {model.sha256}"
    yield f"framework      {_framework(model)}"
    yield f"tags           {_pairs(model.tags)}"
    yield f"properties     {_pairs(model.properties)}"
    if model.description:
        yield f"description    {model.description}".replace("\n", "\n               ")
    if model.parent:
        yield f"made from      {model.parent}"
    if model.manifest:
        yield f"own file       {model.manifest}"
    if model.sample:
        yield f"sample         {model.sample}"
    for user in users:
        yield f"referred to    {user}"


def signatures_told(model: StoredModel) -> Iterator[str]:
    """Those of the record."""
    if model.custom:
        yield "opened by      entry scripts, with get_model_path(name); no server loads it"
    elif model.signatures is None:
        yield f"signatures     {_UNKNOWN}"
    else:
        yield from signature_lines(model.signatures)


def _framework(model: StoredModel) -> str:
    return f"{model.framework} {model.framework_version or ''}".rstrip()


def _day(created_time: str) -> str:
    """`2026-11-25 19:49`"""
    return created_time[:16].replace("T", " ")


def _pairs(pairs: Mapping[str, str]) -> str:
    return " ".join(f"{key}={value}" if value else key for key, value in sorted(pairs.items())) or "-"

"""A definition as JSON: what is written down, read back."""

from dataclasses import asdict
from typing import Any, get_args, get_type_hints

from accelserve.deploy.definition import Autoscale, ServiceDefinition


def as_json(definition: ServiceDefinition) -> dict[str, Any]:
    """The definition as JSON's values; `from_json` reads it back."""
    return {**asdict(definition), "model_files": dict(definition.model_files), "backends": list(definition.backends)}


def from_json(document: object) -> ServiceDefinition:
    """Raises ValueError naming the first key that cannot be read; what the values mean is `problems_of`'s."""
    if not isinstance(document, dict):
        raise ValueError(f"want an object, got {shown(document)}")
    values = {"name": "", **document}
    readers = {"autoscale": _read_autoscale, "model_files": _read_files, "backends": _read_names}
    read: dict[str, Any] = {key: reader(values.pop(key)) for key, reader in readers.items() if key in values}
    return ServiceDefinition(**_plain(values, ServiceDefinition), **read)


def _plain(document: object, kind: type) -> dict[str, Any]:
    """An object whose values are of the kinds that the class names."""
    if not isinstance(document, dict):
        raise ValueError(f"want an object, got {shown(document)}")
    hints = get_type_hints(kind)
    for key, value in document.items():
        wanted = get_args(hints[key]) or (hints[key],) if key in hints else ()
        if type(value) not in wanted and not (type(value) is int and float in wanted):
            raise ValueError(f"{shown(key)}: {'got ' + shown(value) if wanted else 'unknown key'}")
    return document


def _read_autoscale(value: object) -> Autoscale | None:
    return None if value is None else Autoscale(**_plain(value, Autoscale))


def _read_files(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(path, str) for path in value.values()):
        raise ValueError(f"'model_files': want an object of names and paths, got {shown(value)}")
    return tuple(sorted(value.items()))


def _read_names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"'backends': want a list of names, got {shown(value)}")
    return tuple(value)


def shown(value: object) -> str:
    """For a message: not longer than a line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."

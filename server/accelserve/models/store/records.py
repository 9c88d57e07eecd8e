"""What the store knows of a version: the record, as a value and as JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from accelserve.models.manifest import FILE_NAME
from accelserve.models.store.layout import is_model_name, parse_reference

_RECORD_FORMAT = 1
# As Azure ML spells them; any other word is taken as it is.
_FRAMEWORKS = ("Custom", "TensorFlow", "ScikitLearn", "Onnx", "TfKeras", "PyTorch", "Multi")
CUSTOM = "custom"  # the format of what only an entry script opens: any files, as they are
_OF_FORMAT = {"saved_model": "TensorFlow", "onnx": "Onnx", "accelonnx": "Onnx"}
_LONGEST_KEY, _LONGEST_TEXT = 255, 4096


@dataclass(frozen=True, slots=True)
class Registration:
    """What is told when a model is registered.

    framework: None says what the format says. parent: "NAME:VERSION" of the version that this one was made from.
    sample: a file with an input, kept beside the model. manifest: an `accelserve.toml`, which becomes the name's.
    custom: any file or folder, which only an entry script opens; servers do not load it.
    """

    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    framework: str | None = None
    framework_version: str | None = None
    parent: str | None = None
    sample: Path | None = None
    manifest: Path | None = None
    custom: bool = False


def problems_of(name: str, about: Registration) -> list[str]:
    """What is wrong with what was told, all of it."""
    problems = []
    if not is_model_name(name):
        wanted = "a model's name starts with a letter or digit and has only letters, digits, . _ -, at most 255"
        problems.append(f"name {name!r}: {wanted}")
    for what, pairs in (("tag", about.tags), ("property", about.properties)):
        problems += [f"{what} {key!r}: {wrong}" for key, value in pairs.items() if (wrong := _pair_problem(key, value))]
    for what in ("description", "framework", "framework_version"):
        if wrong := _text_problem(getattr(about, what) or ""):
            problems.append(f"{what}: {wrong}")
    if about.parent is not None:
        try:
            if parse_reference(about.parent)[1] is None:
                problems.append(f"parent {about.parent!r}: which version? want NAME:VERSION")
        except ValueError as error:
            problems.append(f"parent {error}")
    for what, file in (("sample", about.sample), ("manifest", about.manifest)):
        if file is not None and (wrong := _file_problem(file)):
            problems.append(f"{what} {file}: {wrong}")
    if about.custom and about.manifest is not None:
        problems.append(f"manifest {about.manifest}: no server loads a custom model, so nothing would read it")
    return problems


def _file_problem(file: Path) -> str:
    try:
        return "" if file.is_file() else "no such file"
    except OSError as error:
        return error.strerror or str(error)


def _pair_problem(key: str, value: str) -> str:
    if not key or len(key) > _LONGEST_KEY or not key.isprintable() or "=" in key:
        return f"want a key of 1 to {_LONGEST_KEY} printable characters without ="
    return _text_problem(value)


def _text_problem(text: str) -> str:
    """Lines and tabs are fine; what no terminal and no UTF-8 can say is not."""
    plain = text.translate(dict.fromkeys(map(ord, "\n\t"), " "))
    if len(text) > _LONGEST_TEXT or not plain.isprintable():
        return f"want at most {_LONGEST_TEXT} printable characters"
    return ""


def framework_of(told: str | None, model_format: str) -> str:
    if told is None:
        return _OF_FORMAT.get(model_format, "Custom")
    return next((known for known in _FRAMEWORKS if known.lower() == told.lower()), told)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A registered version.

    path: its folder, which a server can be given. sha256: of the only file, or of the listing that `sha256sum`
    prints of all files, sorted by name. created_time: ISO 8601, UTC. signatures: name -> what `accelserve show`
    tells of it; None when no back end could read them. sample: the kept input. Only tags and description change.
    """

    name: str
    version: int
    path: Path
    format: str
    sha256: str
    size_bytes: int
    created_time: str
    framework: str
    framework_version: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)
    description: str = ""
    parent: str | None = None
    signatures: Mapping[str, Any] | None = None
    sample: Path | None = None

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.version}"

    @property
    def custom(self) -> bool:
        """Whether only an entry script opens it."""
        return self.format == CUSTOM

    @property
    def manifest(self) -> Path | None:
        """The name's own file, which its versions are served with; None where there is none."""
        found = self.path.parent / FILE_NAME
        return found if found.is_file() else None

    def as_json(self) -> dict[str, Any]:
        """Plain values, for people's scripts."""
        return {
            **asdict(self),
            "path": str(self.path),
            "sample": str(self.sample) if self.sample else None,
            "manifest": str(self.manifest) if self.manifest else None,
        }


# The folder's own place says these; a store can be moved.
_PLACED = ("name", "version", "path", "sample")
_KEPT = tuple(f.name for f in fields(StoredModel) if f.name not in _PLACED)


_PAIRS, _OPTIONAL = ("tags", "properties"), ("framework_version", "parent", "signatures", "sample")


def _fits(key: str, value: Any) -> bool:
    """Whether a record may say this: somebody may have edited it, and the commands trust what they read."""
    if key in _PAIRS:
        return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if value is None:
        return key in _OPTIONAL
    return isinstance(value, {"size_bytes": int, "signatures": dict}.get(key, str))


def encode_record(model: StoredModel) -> bytes:
    content = {"record_format": _RECORD_FORMAT, **{key: getattr(model, key) for key in _KEPT}}
    content["sample"] = model.sample.name if model.sample else None
    return json.dumps(content, indent=2).encode() + b"\n"


def decode_record(content: bytes, name: str, version: int, path: Path, registry: Path) -> StoredModel:
    """The record of the version in folder `path`. Raises ValueError when it is none that this version reads."""
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise ValueError("want a record, got JSON that is nested too deep") from error
    if not isinstance(found, dict) or found.get("record_format") != _RECORD_FORMAT:
        raise ValueError(f"want a record of format {_RECORD_FORMAT}")
    missing = [key for key in (*_KEPT, "sample") if key not in found]
    if missing:
        raise ValueError(f"the record lacks {', '.join(missing)}")
    kept = {key: found[key] for key in _KEPT}
    wrong = [key for key, value in {**kept, "sample": found["sample"]}.items() if not _fits(key, value)]
    if wrong:
        raise ValueError(f"the record's {', '.join(wrong)} cannot be read")
    sample = registry / found["sample"] if found["sample"] else None
    return StoredModel(name=name, version=version, path=path, sample=sample, **kept)

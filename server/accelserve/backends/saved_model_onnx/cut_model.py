"""A converted SavedModel on disk: `cut.json` and the parts it names, host part, dense part and tail.

A *value* is a tensor that moves between the parts, under its name in the frozen graph; a *port* is what a part calls
it. A part takes values at its feeds and gives values at its fetches; inputs and outputs of the signature are values.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from accelserve.backends.spec_json import spec_from_json, spec_to_json
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, Signature, Tensor, dtype_of

FILE_NAME = "cut.json"
LAYOUT = 1  # of the folder; another number is another release's

HOST, DENSE, TAIL = "host", "dense", "tail"
ORDER = (HOST, DENSE, TAIL)  # in which they run


@dataclass(frozen=True, slots=True)
class Part:
    """One graph of a cut signature: a TensorFlow GraphDef (host, tail) or an ONNX file (dense).

    file: relative to the model's folder. feeds, fetches: port -> value. init: operations to run once, after loading.
    nodes: how many it has, for status.
    """

    file: str
    feeds: Mapping[str, str]
    fetches: Mapping[str, str]
    init: tuple[str, ...] = ()
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a host part that only decodes pictures makes of each: float32 (x - mean) * scale of its pixels, as `dtype`.

    grid: of its resize, a word of `Preprocessing.resampling`. fast_dct: as there.
    pixel_error, output_error: how far the server's own decoder is from it, over generated pictures: the largest
    difference of a pixel, of 255; of the whole model's outputs, over the output's largest magnitude.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    dtype: str
    grid: str
    fast_dct: bool
    pixel_error: float = 0.0
    output_error: float = 0.0

    def preprocessing(self) -> Preprocessing:
        """The same as work for the server's decoder."""
        return Preprocessing(
            self.size,
            channel_order="RGB" if self.channels == 3 else "GRAY",
            mean=self.mean,
            scale=self.scale,
            fast_dct=self.fast_dct,
            resampling=self.grid,
        )


@dataclass(frozen=True, slots=True)
class CutSignature:
    """inputs, outputs: signature key -> value. parts: by kind, those that there are.

    pictures: how the host part decodes, where that is all it does and is known; else `no_pictures` says at what.
    """

    signature: Signature
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    parts: Mapping[str, Part]
    pictures: Pictures | None = None
    no_pictures: str = "it has no host part"


def why_not_decoded(cut: CutSignature) -> str:
    """What keeps the server's decoder from standing in for the host part, "" when nothing does."""
    if cut.pictures is None:
        return cut.no_pictures
    if cut.signature.defaults:
        return "its input has a default value"
    made = set(cut.parts[HOST].fetches.values())
    tail = set(cut.parts[TAIL].feeds.values()) if TAIL in cut.parts else set[str]()
    if (made | set(cut.inputs.values())) & (tail | set(cut.outputs.values())):
        return "what comes after the network takes its strings or pixels too"
    return ""


@dataclass(frozen=True, slots=True)
class CutModel:
    """files: relative name -> size in bytes. report: what the conversion found, for people."""

    signatures: Mapping[str, CutSignature]
    files: Mapping[str, int] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


def write_cut(folder: Path, model: CutModel) -> None:
    """Write `cut.json` last: with the sizes of the files that are there now."""
    files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
    content = {
        "layout": LAYOUT,
        "signatures": {name: _signature_to_json(cut) for name, cut in model.signatures.items()},
        "files": files,
        "report": dict(model.report),
    }
    (folder / FILE_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read_cut(folder: Path, remedy: str) -> CutModel:
    """Read and check a converted model.

    remedy: what to do about a damaged one. Raises ScoringError(PRECONDITION) naming folder, fault and remedy.
    """
    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        if content["layout"] != LAYOUT:
            raise ValueError(f"its layout is {content['layout']!r}, this release reads {LAYOUT}")
        model = CutModel(
            {name: _signature_from_json(name, value) for name, value in content["signatures"].items()},
            content["files"],
            content["report"],
        )
        _check_files(folder, model)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        message = f"the converted model in {folder} cannot be used: {reason}; {remedy}"
        raise ScoringError(Kind.PRECONDITION, message) from error
    return model


def _check_files(folder: Path, model: CutModel) -> None:
    named = {part.file for cut in model.signatures.values() for part in cut.parts.values()}
    for name in sorted(named | set(model.files)):
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name} lies outside of it")
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if name not in model.files or path.stat().st_size != model.files[name]:
            raise ValueError(f"{name} has {path.stat().st_size} bytes, want {model.files.get(name)}")


def _signature_to_json(cut: CutSignature) -> dict[str, Any]:
    signature = cut.signature
    return {
        "method_name": signature.method_name,
        "inputs": {key: spec_to_json(spec, cut.inputs[key]) for key, spec in signature.inputs.items()},
        "outputs": {key: spec_to_json(spec, cut.outputs[key]) for key, spec in signature.outputs.items()},
        "defaults": {key: _tensor_to_json(tensor) for key, tensor in signature.defaults.items()},
        "parts": {kind: asdict(cut.parts[kind]) for kind in ORDER if kind in cut.parts},
        "pictures": asdict(cut.pictures) if cut.pictures else None,
        "no_pictures": cut.no_pictures,
    }


def _signature_from_json(name: str, value: Mapping[str, Any]) -> CutSignature:
    signature = Signature(
        name,
        MappingProxyType({key: spec_from_json(key, spec) for key, spec in value["inputs"].items()}),
        MappingProxyType({key: spec_from_json(key, spec) for key, spec in value["outputs"].items()}),
        value["method_name"],
        MappingProxyType({key: _tensor_from_json(tensor) for key, tensor in value["defaults"].items()}),
    )
    parts = {kind: Part(**{**part, "init": tuple(part["init"])}) for kind, part in value["parts"].items()}
    return CutSignature(
        signature,
        {key: spec["value"] for key, spec in value["inputs"].items()},
        {key: spec["value"] for key, spec in value["outputs"].items()},
        parts,
        _pictures_from_json(value.get("pictures")),
        value.get("no_pictures", "it was converted by a release that did not look for that; convert it again"),
    )


def _pictures_from_json(value: Mapping[str, Any] | None) -> Pictures | None:
    """Lists are tuples."""
    if value is None:
        return None
    fields: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    return Pictures(**fields)


def _tensor_to_json(tensor: Tensor) -> dict[str, Any]:
    """A default value; strings are bytes of any kind, so base64."""
    dtype = dtype_of(tensor)
    plain: list[Any] = tensor.ravel().astype(object).tolist()
    values = [base64.b64encode(value).decode() for value in plain] if dtype.is_string else plain
    return {"dtype": dtype.name, "shape": list(tensor.shape), "values": values}


def _tensor_from_json(value: Mapping[str, Any]) -> Tensor:
    dtype = BY_NAME[value["dtype"]]
    values = [base64.b64decode(v) for v in value["values"]] if dtype.is_string else value["values"]
    return np.array(values, dtype.numpy).reshape(value["shape"])

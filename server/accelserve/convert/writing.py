"""The parts of converted signatures as files."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from accelserve.backends.saved_model_onnx.cut_model import DENSE, HOST, CutSignature, Part
from accelserve.convert.decoding import recognise
from accelserve.convert.dense import OnnxPart
from accelserve.convert.frozen import Frozen
from accelserve.convert.parts import PartGraph

_PLAIN_MODEL = "model.onnx"  # at the root where one dense graph is all: other servers and tools take that file


@dataclass(frozen=True, slots=True)
class Converted:
    """One signature as graphs. texts: pairs of strings to ask it with, of what it reads or looks up.

    moved: operators that only TensorFlow has though they touch no strings.
    """

    frozen: Frozen
    graphs: Mapping[str, PartGraph]
    dense: OnnxPart
    texts: tuple[tuple[bytes, bytes], ...]
    moved: str


def write_parts(folder: Path, converted: Mapping[str, Converted]) -> dict[str, CutSignature]:
    """Write the parts' files; equal ones once, since each is loaded with weights of its own."""
    written: dict[bytes, Part] = {}
    plain = len(converted) == 1 and all(list(one.graphs) == [DENSE] for one in converted.values())
    cuts = {}
    for index, (name, one) in enumerate(converted.items()):
        parts = {}
        for kind, graph in one.graphs.items():
            if kind == DENSE:
                file = _PLAIN_MODEL if plain else f"{index}/{_PLAIN_MODEL}"
                part = Part(file, one.dense.feeds, one.dense.fetches, nodes=one.dense.nodes)
                parts[kind] = _write_once(folder, part, one.dense.model, one.dense.digest(), written)
            else:
                part = Part(f"{index}/{kind}.pb", graph.feeds, graph.fetches, graph.init, graph.nodes)
                parts[kind] = _write_once(folder, part, graph.definition, None, written)
        found = recognise(one.graphs[HOST]) if HOST in one.graphs else ()
        cuts[name] = CutSignature(one.frozen.signature, one.frozen.inputs, one.frozen.outputs, parts, *found)
    return cuts


def _write_once(folder: Path, part: Part, content: Any, digest: bytes | None, written: dict[bytes, Part]) -> Part:
    """Write a part, or take the file of an equal one: its ports, in their order, with this one's values.

    content: a protobuf message. digest: None for the bytes' own.
    """
    data = content.SerializeToString(deterministic=True)
    first = written.setdefault(digest or sha256(data).digest(), part)
    if first is part:
        (folder / part.file).parent.mkdir(exist_ok=True)
        (folder / part.file).write_bytes(data)
        return part
    return replace(
        part,
        file=first.file,
        feeds=dict(zip(first.feeds, part.feeds.values(), strict=True)),
        fetches=dict(zip(first.fetches, part.fetches.values(), strict=True)),
    )


def delete_unused(folder: Path, kept: Mapping[str, CutSignature]) -> None:
    used = {folder / part.file for cut in kept.values() for part in cut.parts.values()}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_file() and path not in used:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()

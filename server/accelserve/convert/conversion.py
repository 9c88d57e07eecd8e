"""SavedModel -> folder of a converted model: freeze, cut, convert, compare, and only then let it appear."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from accelserve.backends.base import ModelArtifact, Progress, Session
from accelserve.backends.saved_model_onnx.cut_model import (
    DENSE,
    HOST,
    CutModel,
    CutSignature,
    why_not_decoded,
    write_cut,
)
from accelserve.convert.compare import TOLERANCE, Comparison, compare, compare_widely
from accelserve.convert.cut import find_cut, list_ops
from accelserve.convert.decoding_error import PictureError, measure
from accelserve.convert.dense import OPSET, UnsupportedOps, to_onnx
from accelserve.convert.examples import example_pair
from accelserve.convert.frozen import LoadedSavedModel
from accelserve.convert.parts import ReadTable, crossing, split, table_reader
from accelserve.convert.precision import halve
from accelserve.convert.samples import from_file, generated
from accelserve.convert.unfinished import appearing
from accelserve.convert.writing import Converted, delete_unused, write_parts
from accelserve.errors import Kind, ScoringError
from accelserve.installed import installed_versions
from accelserve.tensors import DEFAULT_SIGNATURE

_MOST_MOVES = 8  # of the cut behind operators that tf2onnx cannot convert
_ROWS = 3
_TOOLS = ("tf2onnx", "onnx", "onnxruntime", "onnxruntime-gpu")  # one of the last two

T = TypeVar("T")

# Opens a model on the CPU; the caller closes it.
Open = Callable[[ModelArtifact], Session]


@dataclass(frozen=True, slots=True)
class Request:
    """signatures: empty for all that can be converted. samples: files to compare with in place of generated inputs.

    precision: "fp32" or "fp16", of the dense parts.
    """

    name: str
    source: Path
    output: Path
    signatures: tuple[str, ...] = ()
    opset: int = OPSET
    samples: tuple[Path, ...] = ()
    tolerance: float = TOLERANCE
    precision: str = "fp32"


def convert(request: Request, open_session: Open, progress: Progress) -> dict[str, Any]:
    """Write the folder `request.output`. Returns the report.

    Raises ScoringError: CONFLICT when the folder exists, NOT_FOUND for a sample, PRECONDITION naming what cannot be
    converted or differs; nothing is left behind then.
    """
    for sample in request.samples:
        if not sample.is_file():
            raise ScoringError(Kind.NOT_FOUND, f"sample {sample}: no such file")
    with appearing(request.name, request.output) as folder:
        report = _Conversion(request, folder, open_session, progress).run()
    progress("done", 1.0)
    return report


class _Conversion:
    """A signature that was asked for by name, the default one and the only one have to succeed; others are left out."""

    def __init__(self, request: Request, folder: Path, open_session: Open, progress: Progress) -> None:
        self._request = request
        self._folder = folder
        self._open_session = open_session
        self._progress = progress
        self._required: frozenset[str] = frozenset()
        self._left_out: dict[str, str] = {}
        self._pictures: dict[str, list[PictureError]] = {}  # what the server's decoder was measured with

    def run(self) -> dict[str, Any]:
        started = time.monotonic()
        converted = self._convert()
        cuts = write_parts(self._folder, converted)
        halved = self._halve(cuts) if self._request.precision == "fp16" else {}
        write_cut(self._folder, CutModel(cuts))
        self._progress("comparing with TensorFlow", 0.7)
        comparisons = self._compare(converted, cuts)
        kept = {name: cuts[name] for name in comparisons}
        delete_unused(self._folder, kept)
        report = {
            "model": self._request.name,
            "opset": self._request.opset,
            "tolerance": self._request.tolerance,
            "precision": self._request.precision,
            "fp16_errors": halved,
            "tools": installed_versions(_TOOLS),
            "signatures": {
                name: _told(converted[name], comparisons[name]) | _decoding(kept[name], self._pictures.get(name, []))
                for name in kept
            },
            "left_out": self._left_out,
            "seconds": round(time.monotonic() - started, 1),
        }
        write_cut(self._folder, CutModel(kept, report=report))
        return report

    def _convert(self) -> dict[str, Converted]:
        self._progress("loading the SavedModel", 0.0)
        with LoadedSavedModel(self._request.name, self._request.source) as loaded:
            names = self._names(loaded)
            converted = {}
            for index, name in enumerate(names):
                self._progress(f'cutting and converting signature "{name}"', 0.2 + 0.4 * index / len(names))
                if one := self._tried(name, partial(_convert_signature, loaded, name, self._request.opset)):
                    converted[name] = one
        self._check_any(converted)
        return converted

    def _halve(self, cuts: Mapping[str, CutSignature]) -> dict[str, float]:
        """Each dense file in float16, and its error with every inner value rounded; the whole is compared later."""
        self._progress("converting to fp16", 0.6)
        errors = {}
        for file in sorted({cut.parts[DENSE].file for cut in cuts.values()}):
            full = (self._folder / file).rename(self._folder / "fp32.onnx")
            report = halve(self._request.name, full, self._folder / file, self._request.tolerance)
            errors[file] = report.relative_error
            full.unlink()
        return errors

    def _names(self, loaded: LoadedSavedModel) -> list[str]:
        """The signatures to convert. Raises ScoringError for one that was asked for and is not there."""
        self._left_out = dict(loaded.refused)
        for name in self._request.signatures:
            if name in loaded.refused:
                raise self._failure(name, loaded.refused[name])
            if name not in loaded.signatures:
                there = ", ".join(f'"{other}"' for other in loaded.signatures)
                raise ScoringError(Kind.NOT_FOUND, f'{loaded.name}: no signature "{name}"; there is {there}')
        names = list(self._request.signatures) or list(loaded.signatures)
        self._required = frozenset(self._request.signatures or (names if len(names) == 1 else (DEFAULT_SIGNATURE,)))
        return names

    def _compare(self, converted: Mapping[str, Converted], cuts: dict[str, CutSignature]) -> dict[str, Comparison]:
        """cuts: what is known of their decoding is completed."""
        request = self._request
        found = {}
        with (
            closing(self._open_session(ModelArtifact(request.name, 1, "saved_model", request.source))) as reference,
            closing(self._open_session(ModelArtifact(request.name, 1, "cut", self._folder))) as candidate,
        ):
            for name, one in converted.items():
                comparison = self._tried(name, partial(_compared, reference, candidate, one, request))
                if comparison:
                    found[name] = comparison
                    cuts[name] = self._measured(reference, candidate, one, cuts[name])
        self._check_any(found)
        return found

    def _measured(self, reference: Session, candidate: Session, one: Converted, cut: CutSignature) -> CutSignature:
        """With how far the server's decoder is from the host part, or why it cannot stand in for it."""
        if (reason := why_not_decoded(cut)) or cut.pictures is None:
            return replace(cut, pictures=None, no_pictures=reason)
        signature, samples = one.frozen.signature, self._request.samples
        try:
            pictures, told = measure(reference, candidate, signature, one.graphs[HOST], cut.pictures, samples)
        except ScoringError as error:
            return replace(cut, pictures=None, no_pictures=f"its pictures cannot be compared: {error.message}")
        self._pictures[signature.name] = told
        return replace(cut, pictures=pictures)

    def _tried(self, name: str, work: Callable[[], T]) -> T | None:
        """None when a signature is left out, with the reason."""
        try:
            return work()
        except ScoringError as error:
            if name in self._required:
                raise self._failure(name, error.message) from error
            self._left_out[name] = error.message
            return None

    def _check_any(self, found: Mapping[str, object]) -> None:
        if not found:
            raise self._failure(*next(iter(self._left_out.items()), ("", "there is none")))

    def _failure(self, name: str, reason: str) -> ScoringError:
        message = f'{self._request.name}: signature "{name}" cannot be converted: {reason}'
        return ScoringError(Kind.PRECONDITION, message, reason="cannot_cut")


def _convert_signature(loaded: LoadedSavedModel, name: str, opset: int) -> Converted:
    """Cut and convert; where tf2onnx lacks an operator, cut again behind it, as long as the weights come later."""
    frozen = loaded.freeze(name)
    tables = _Tables(table_reader(loaded.session))
    names = {value: key for key, value in (*frozen.outputs.items(), *frozen.inputs.items())}
    graph = frozen.graph
    for _ in range(_MOST_MOVES):
        graphs = split(frozen, find_cut(graph, frozen.outputs.values()), tables.read)
        try:
            dense = to_onnx(graphs[DENSE], names, opset)
            examples = example_pair(frozen.definition)
            texts = ((examples,) if examples else ()) + tables.texts()
            return Converted(frozen, graphs, dense, texts, list_ops(graph, graph.forced))
        except UnsupportedOps as error:
            behind = graph.forced | (error.nodes & graph.nodes.keys())
            if behind == graph.forced:
                raise ScoringError(Kind.PRECONDITION, str(error), reason="cannot_cut") from error
            graph = replace(graph, forced=behind)
            unsupported = error
    raise ScoringError(Kind.PRECONDITION, str(unsupported), reason="cannot_cut")


class _Tables:
    """Reads tables, and remembers string keys."""

    def __init__(self, read: ReadTable) -> None:
        self._read = read
        self._keys: list[bytes] = []

    def read(self, name: str, key_type: Any, value_type: Any) -> tuple[Any, Any]:
        keys, values = self._read(name, key_type, value_type)
        self._keys += [key for key in keys[:2] if isinstance(key, bytes)]
        return keys, values

    def texts(self) -> tuple[tuple[bytes, bytes], ...]:
        return ((self._keys[0], self._keys[-1]),) if self._keys else ()


def _compared(reference: Session, candidate: Session, one: Converted, request: Request) -> Comparison:
    """The worst of the comparisons with the samples. Raises ScoringError(PRECONDITION) when outputs differ."""
    signature = one.frozen.signature
    ours = list(generated(signature, _ROWS, one.texts))
    found = [
        compare(reference, candidate, signature, [(path.name, from_file(signature, path))], request.tolerance)
        for path in request.samples
    ] or compare_widely(reference, candidate, signature, ours, request.tolerance)
    worst = max(found, key=lambda comparison: (not comparison.equal, comparison.error))
    if not worst.equal:
        differing = "; ".join(
            f'"{o.name}" {o.tensor}: {o.note}, error {o.error:.3g}' for o in worst.outputs if not o.equal
        )
        message = (
            f"it does not answer as TensorFlow does ({worst.sample}): {differing}; tolerance {request.tolerance:g}"
        )
        raise ScoringError(Kind.PRECONDITION, message, reason="differs")
    return worst


def _decoding(cut: CutSignature, told: Sequence[PictureError]) -> dict[str, Any]:
    """Of a signature's report: how its host part decodes, and how far the server's decoder is from that."""
    if cut.pictures is None:
        return {"pictures": None, "no_pictures": cut.no_pictures}
    return {"pictures": {**asdict(cut.pictures), "measured": [asdict(each) for each in told]}, "no_pictures": ""}


def _told(one: Converted, comparison: Comparison) -> dict[str, Any]:
    """A signature's part of the report."""
    return {
        "nodes": {kind: graph.nodes for kind, graph in one.graphs.items()},
        "onnx_nodes": one.dense.nodes,
        "cut": crossing(one.graphs, one.frozen),
        "moved": one.moved,
        "checks_left_out": one.frozen.checks,
        "comparison": asdict(comparison),
    }

"""A cut SavedModel resident: host part in TensorFlow, dense part in ONNX Runtime, tail in TensorFlow again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

from accelserve.backends.base import (
    Batch,
    BatchResult,
    DecodedInput,
    Device,
    Placement,
    Session,
    TakesPixels,
    buffers_of,
    is_steady,
)
from accelserve.backends.batch_check import check_batch
from accelserve.backends.run_gate import RunGate
from accelserve.backends.saved_model_onnx.cut_model import DENSE, HOST, ORDER, CutSignature, Part, why_not_decoded
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import DEFAULT_SIGNATURE, Signature, Tensor


class GraphRunner(Protocol):
    """What runs a host part or a tail: `tf_session.graph.TfGraph`."""

    def run(self, values: Mapping[str, Tensor], wanted: Sequence[str], takes_strings: bool) -> dict[str, Tensor]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OpenSignature:
    """A signature and its loaded parts: graphs by kind (host, tail); dense: None when nothing is dense.

    dense_signature: what batches of the dense part name.
    """

    cut: CutSignature
    dense: Session | None
    graphs: Mapping[str, GraphRunner]
    dense_signature: str = DEFAULT_SIGNATURE


class CutSession:
    """Runs may overlap, as those of the parts may."""

    def __init__(
        self,
        model: str,
        opened: Mapping[str, OpenSignature],
        device: Device,
        placement: Placement,
        remarks: tuple[str, ...] = (),
    ) -> None:
        self.signatures: Mapping[str, Signature] = MappingProxyType(
            {name: one.cut.signature for name, one in opened.items()}
        )
        self.device = device
        self.placement = placement
        self.remarks = remarks
        self._model = model
        self._opened = dict(opened)
        self._asked = dict(self.signatures)  # all that a batch may name
        self._gate = RunGate(model)
        self.steady = all(not one.graphs and is_steady(one.dense) for one in opened.values())

    def take_decoded(self, signature: str) -> DecodedInput:
        """Where the host part only decodes pictures, the rest of the model by itself."""
        opened = self._opened[signature]
        cut, dense = opened.cut, opened.dense
        if (reason := why_not_decoded(cut)) or cut.pictures is None or dense is None:
            message = f'{self._model}: signature "{signature}" needs its own decoder: {reason or "nothing is dense"}'
            raise ScoringError(Kind.UNSUPPORTED, message)
        ((key, spec),), (value,) = cut.signature.inputs.items(), cut.parts[HOST].fetches.values()
        (port,) = (port for port, fed in cut.parts[DENSE].feeds.items() if fed == value)
        crossing = dense.signatures[opened.dense_signature].inputs[port]
        inputs = MappingProxyType({key: replace(spec, dtype=crossing.dtype, shape=crossing.shape)})
        taken = replace(cut.signature, name=f"{signature} of decoded pictures", inputs=inputs)
        rest = {kind: part for kind, part in cut.parts.items() if kind != HOST}
        self._opened[taken.name] = replace(
            opened, cut=replace(cut, signature=taken, inputs={key: value}, parts=rest, pictures=None)
        )
        self._asked[taken.name] = taken
        found = cut.pictures
        return DecodedInput(taken, found.preprocessing(), found.pixel_error, found.output_error)

    def take_pixels(self, signature: str, preprocessing: Preprocessing) -> Signature:
        """Where the dense part is the whole model, as that takes them."""
        opened = self._opened[signature]
        dense: object = opened.dense
        if set(opened.cut.parts) != {DENSE} or not isinstance(dense, TakesPixels):
            message = f'{self._model}: signature "{signature}" does not run on {self.device.id} alone'
            raise ScoringError(Kind.UNSUPPORTED, message)
        if passed_on := set(opened.cut.outputs.values()) & set(opened.cut.inputs.values()):
            message = f'{self._model}: signature "{signature}" gives {", ".join(sorted(passed_on))} back, not pixels'
            raise ScoringError(Kind.UNSUPPORTED, message)
        taken = dense.take_pixels(DEFAULT_SIGNATURE, preprocessing)
        of_pixels = _as_pixels(opened.cut.signature, taken)
        cut = replace(opened.cut, signature=of_pixels)
        self._opened[of_pixels.name] = replace(opened, cut=cut, dense_signature=taken.name)
        self._asked[of_pixels.name] = of_pixels
        return of_pixels

    def run(self, batch: Batch) -> BatchResult:
        """As `Session.run`. An input is refused here when its type or shape does not fit, whichever part takes it."""
        signature = check_batch(self._model, self._asked, batch)
        opened = self._opened[batch.signature]
        cut = opened.cut
        values = {cut.inputs[key]: tensor for key, tensor in batch.inputs.items()}
        takes_strings = any(spec.dtype.is_string for spec in signature.inputs.values())
        errors: dict[int, ScoringError] = {}
        with self._gate:
            for kind, part, wanted in plan(cut, batch.outputs):
                if kind == DENSE:
                    values |= _run_dense(opened, part, values, wanted, batch.rows, errors)
                else:
                    values |= opened.graphs[kind].run(values, wanted, takes_strings)
        passed_on = set(cut.inputs.values())
        outputs = {key: values[cut.outputs[key]] for key in batch.outputs}
        # An input that is an output too may be memory that `buffers` lent: the next batch is written there.
        outputs = {key: t.copy() if cut.outputs[key] in passed_on else t for key, t in outputs.items()}
        return BatchResult(outputs, errors)

    def buffers(self, signature: str, rows: int) -> Mapping[str, Tensor] | None:
        """The dense part's own, where it is the whole model."""
        opened = self._opened.get(signature)
        if opened is None or set(opened.cut.parts) != {DENSE}:
            return None
        lent = buffers_of(opened.dense)(opened.dense_signature, rows)
        if lent is None:
            return None
        values = {value: lent[port] for port, value in opened.cut.parts[DENSE].feeds.items()}
        return {key: values[value] for key, value in opened.cut.inputs.items() if value in values}

    def close(self) -> None:
        if self._gate.close():
            close_all(self._opened.values())


def _as_pixels(signature: Signature, taken: Signature) -> Signature:
    """taken: the dense part's signature of pixels, whose one input has another name than ours."""
    ((key, spec),), (pixels,) = signature.inputs.items(), taken.inputs.values()
    inputs = MappingProxyType({key: replace(spec, dtype=pixels.dtype, shape=pixels.shape)})
    return replace(signature, name=f"{signature.name} of pixels", inputs=inputs)


def plan(cut: CutSignature, outputs: Iterable[str]) -> list[tuple[str, Part, tuple[str, ...]]]:
    """Which parts run for the wanted outputs, in their order, and which values each has to give."""
    needed = {cut.outputs[key] for key in outputs}
    steps: list[tuple[str, Part, tuple[str, ...]]] = []
    for kind in reversed(ORDER):
        part = cut.parts.get(kind)
        wanted = tuple(value for value in part.fetches.values() if value in needed) if part else ()
        if part and wanted:
            steps.append((kind, part, wanted))
            needed |= set(part.feeds.values())
    return steps[::-1]


def _run_dense(
    opened: OpenSignature,
    part: Part,
    values: Mapping[str, Tensor],
    wanted: tuple[str, ...],
    rows: int,
    errors: dict[int, ScoringError],
) -> dict[str, Tensor]:
    """The wanted values; rows that failed alone are put into `errors`."""
    assert opened.dense is not None, "a dense part was planned and not loaded"
    ports = {value: port for port, value in part.fetches.items()}
    inputs = {port: values[value] for port, value in part.feeds.items()}
    asked = tuple(ports[value] for value in wanted)
    result = opened.dense.run(Batch(opened.dense_signature, inputs, asked, rows))
    errors.update(result.item_errors)
    return {value: result.outputs[ports[value]] for value in wanted}


def close_all(opened: Iterable[OpenSignature]) -> None:
    """Close each part once; signatures may share them."""
    closed: set[int] = set()
    for one in opened:
        for part in (*one.graphs.values(), one.dense):
            if part is not None and id(part) not in closed:
                closed.add(id(part))
                part.close()

"""From the names a client used to the keys of a signature: inputs checked and completed, outputs chosen. Pure.

The rules and texts are TF Serving's Predict (specs/tfserving.md 1.3, 1.5), with two extensions: tensor names
("Placeholder:0") are as good as signature keys, and an answer uses the dialect of its question.
"""

from collections.abc import Hashable, Mapping
from typing import NamedTuple

from accelserve.errors import Kind, ScoringError
from accelserve.messages import ScoreRequest
from accelserve.tensors import Signature, Tensor, TensorSpec, describe_tensor, dtype_of, find_spec

_MOST_REMEMBERED = 1024  # shapes: a client can send ever new ones


class Bound(NamedTuple):
    """A request in the signature's terms.

    inputs: by signature key, complete. outputs: (name in the answer, signature key) in answer order; keys: the latter.
    rows: length of the batch axis, 1 without one. batched: may ride with others. renamed: whether the answer's names
    are not the keys. kind: equal for requests that can ride together, None where that was not worked out.
    """

    inputs: Mapping[str, Tensor]
    outputs: tuple[tuple[str, str], ...]
    keys: tuple[str, ...]
    rows: int
    batched: bool
    renamed: bool
    kind: Hashable = None


class Binder:
    """`bind` for one signature of one model, which remembers what it found right.

    The usual request, one input by its key and all outputs, is checked once for each dtype and shape: 0.4 µs then.
    """

    def __init__(self, signature: Signature, model: str) -> None:
        """model: "name:version", for messages."""
        self._signature = signature
        self._model = model
        self._key = next(iter(signature.inputs)) if len(signature.inputs) == 1 else None
        self._known: dict[Hashable, Bound] = {}
        self.row_ns: int | None = None  # what the model takes for a row; None until it has run

    def took(self, run_ns: int, rows: int) -> None:
        """Of a run. Less is believed at once, more by an eighth: one interrupted run makes no model slow."""
        if rows:
            now_ns, known_ns = run_ns // rows, self.row_ns
            self.row_ns = now_ns if known_ns is None or now_ns < known_ns else known_ns + (now_ns - known_ns) // 8

    def bind(self, request: ScoreRequest) -> Bound:
        """Raises ScoringError(INVALID)."""
        inputs = request.inputs
        if self._key is None or request.output_filter or len(inputs) != 1 or self._key not in inputs:
            return bind(self._signature, request, self._model)
        tensor = inputs[self._key]
        kind = (tensor.dtype, tensor.shape)
        known = self._known.get(kind)
        if known is None:
            known = self._remember(kind, bind(self._signature, request, self._model))
        return Bound(inputs, *known[1:])

    def _remember(self, kind: tuple[object, tuple[int, ...]], found: Bound) -> Bound:
        dtype, shape = kind
        one = (self._key, dtype, shape[1:])
        # As `batching.work.Work.group`: whoever is bound the long way rides with those that are known.
        outputs, inputs = (found.keys, one) if len(found.keys) == 1 else (frozenset(found.keys), frozenset((one,)))
        known = found._replace(inputs={}, kind=(self._signature.name, outputs, inputs))
        if len(self._known) < _MOST_REMEMBERED:
            self._known[kind] = known
        return known


def bind(signature: Signature, request: ScoreRequest, model: str) -> Bound:
    """Check a request against a signature.

    model: "name:version", for messages. Raises ScoringError(INVALID).
    """
    inputs, by_key = _bind_inputs(signature, request.inputs)
    for key, tensor in inputs.items():
        _check_tensor(signature, signature.inputs[key], tensor, model)
    outputs = _bind_outputs(signature, request.output_filter, by_key)
    rows = _shared_rows(inputs) if signature.batched else None
    # No rows cannot ride with others, and neither can inputs that disagree about how many there are.
    keys = tuple([key for _, key in outputs])
    return Bound(inputs, outputs, keys, rows or 1, bool(rows), keys != tuple([name for name, _ in outputs]))


def _bind_inputs(signature: Signature, sent: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], bool]:
    """Inputs by signature key with defaults filled in, and whether the client spoke in signature keys."""
    if sent.keys() == signature.inputs.keys():
        return dict(sent), True
    found: dict[str, Tensor] = {}
    by_key = True
    unknown = []
    for name, tensor in sent.items():
        spec = find_spec(signature.inputs, name)
        if spec is None or spec.name in found:
            unknown.append(name)
            continue
        found[spec.name] = tensor
        by_key = by_key and spec.name == name
    missing = signature.inputs.keys() - found.keys() - signature.defaults.keys()
    if unknown or missing:
        raise _wrong_names(signature, sent, unknown, missing)
    return {key: found[key] if key in found else signature.defaults[key] for key in signature.inputs}, by_key


def _wrong_names(signature: Signature, sent: Mapping[str, Tensor], extra: list[str], missing: set[str]) -> ScoringError:
    wanted = set(signature.inputs)
    if len(sent) == len(wanted) and missing:
        alias = min(missing)
        text = (
            f"Signature input alias: {alias}(feed name: {signature.inputs[alias].tensor_name}) not found in request "
            f"and no default value provided. Inputs expected to be in the request {_set(sent)}, "
            f"or default input alias set: {_set(signature.defaults)}"
        )
    elif signature.defaults and not missing:
        text = f"Inputs contains invalid name. Used request inputs: {_set(wanted)}, request input: {_set(sent)}"
    else:
        text = (
            f"input size does not match signature: {len(sent)}!={len(wanted)} len({_set(sent)}) != len({_set(wanted)})."
            f" Sent extra: {_set(extra)}. Missing but required: {_set(missing)}."
        )
    return ScoringError(Kind.INVALID, text, reason="wrong_input_name")


def _set(names: Mapping[str, object] | list[str] | set[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _check_tensor(signature: Signature, spec: TensorSpec, tensor: Tensor, model: str) -> None:
    if tensor.dtype != spec.dtype.numpy:
        got = describe_tensor(tensor)
        note = f" (dtype {dtype_of(tensor)})" if tensor.ndim == 0 else ""
        message = f'{model} "{spec.name}": want {spec}, got {got}{note}'
        raise ScoringError(Kind.INVALID, message, reason="wrong_dtype")
    if signature.strict_shapes and not spec.accepts_shape(tensor.shape):
        message = f'{model} "{spec.name}": want {spec}, got {describe_tensor(tensor)}'
        raise ScoringError(Kind.INVALID, message, reason="wrong_shape")


def _bind_outputs(signature: Signature, wanted: tuple[str, ...], by_key: bool) -> tuple[tuple[str, str], ...]:
    if not wanted:
        return tuple([(key if by_key else spec.tensor_name, key) for key, spec in signature.outputs.items()])
    bound: dict[str, str] = {}
    for name in wanted:
        spec = find_spec(signature.outputs, name)
        if spec is None:
            known = _set(dict(signature.outputs))
            message = f"output tensor alias not found in signature: {name} Outputs expected to be in the set {known}."
            raise ScoringError(Kind.INVALID, message, reason="wrong_output_name")
        if name in bound or spec.name in bound.values():
            raise ScoringError(Kind.INVALID, f"duplicate output tensor alias: {name}", reason="wrong_output_name")
        bound[name] = spec.name
    return tuple(bound.items())


def _shared_rows(inputs: Mapping[str, Tensor]) -> int | None:
    """The length of axis 0 where all inputs agree on it."""
    rows = None
    for tensor in inputs.values():
        if tensor.ndim == 0 or (rows is not None and tensor.shape[0] != rows):
            return None
        rows = tensor.shape[0]
    return rows

"""JSON rows and columns to the tensors of a signature (specs/tfserving.md 2.2).

Names are the signature's keys or its tensor names, and the tensors come back under the names that were used.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from accelserve.codecs.json_numbers import NumberArray
from accelserve.codecs.json_tensors import MAX_RANK, in_runs, is_b64, quick_tensor, tensor_of, walk
from accelserve.codecs.json_text import show
from accelserve.errors import GRPC_CODE_NAMES, Kind, ScoringError
from accelserve.tensors import STRING, Tensor, TensorSpec, find_spec

Specs = Mapping[str, TensorSpec]


def bind_columns(values: Any, specs: Specs, *, has_bools: bool) -> dict[str, Tensor]:
    """The tensors of "inputs": an object by name, or the bare value of the only input.

    Names that mean no input are ignored. Raises ScoringError as `json_tensors.tensor_of`, and INVALID for missing ones.
    """
    if isinstance(values, NumberArray):
        if (bound := _bind_numbers(values, specs)) is not None:
            return bound
        values = values.lists()
    if not _is_named(values):
        if len(specs) > 1:
            raise _ambiguous("inputs is a plain value/list, but expecting an object")
        (spec,) = specs.values()
        return {spec.name: tensor_of(values, spec.dtype, has_bools=has_bools)}
    called = _client_names(values, specs)
    for key in specs:
        if key not in called:
            raise _invalid(f"Missing named input: {key} in 'inputs' object.")
    return {name: tensor_of(values[name], specs[key].dtype, has_bools=has_bools) for key, name in called.items()}


def bind_rows(rows: Sequence[Any] | NumberArray, specs: Specs, *, has_bools: bool) -> dict[str, Tensor]:
    """The tensors of "instances", a list that is not empty: objects by name, or bare values of the only input.

    Each tensor is [len(rows), *shape of a row]. Raises ScoringError as `json_tensors.tensor_of`, and INVALID for rows
    of different kinds, names or shapes.
    """
    if isinstance(rows, NumberArray):
        if (bound := _bind_numbers(rows, specs)) is not None:
            return bound
        rows = rows.lists()
    if type(rows[0]) is not dict or is_b64(rows[0]):
        if len(specs) > 1:
            raise _ambiguous("instances is a plain list, but expecting list of objects")
        (spec,) = specs.values()
        found = quick_tensor(rows, spec.dtype, has_bools)
        return {spec.name: found if found is not None else _stack(rows, spec, has_bools)}
    _require_equal_names(rows, specs)
    called = _client_names(rows[0], specs)
    tensors = {}
    for key, name in called.items():
        column = [row[name] for row in rows]
        found = quick_tensor(column, specs[key].dtype, has_bools)
        tensors[name] = found if found is not None else _stack(column, specs[key], has_bools, name)
    return tensors


def with_pictures(values: Any, specs: Specs) -> Specs:
    """What to bind "instances" or "inputs" to where the only input takes encoded pictures too: strings, if they are.

    The first value decides, as TF Serving has it: whether it is {"b64": "<text>"}.
    """
    first = _first_leaf(values)
    if _is_named(first):
        first = next((_first_leaf(value) for name, value in first.items() if find_spec(specs, name)), None)
    return {key: replace(spec, dtype=STRING) for key, spec in specs.items()} if is_b64(first) else specs


def _first_leaf(values: Any) -> Any:
    while type(values) is list and values:
        values = values[0]
    return values


def _bind_numbers(numbers: NumberArray, specs: Specs) -> dict[str, Tensor] | None:
    """Rows and columns are the same here. None where the lists have to be looked at."""
    if len(specs) > 1:
        return None
    (spec,) = specs.values()
    found = numbers.tensor(spec.dtype)
    return {spec.name: found} if found is not None else None


def _is_named(value: object) -> bool:
    return type(value) is dict and not is_b64(value)


def _ambiguous(refusal: str) -> ScoringError:
    return _invalid(f"{refusal} as multiple input tensors required as per tensorinfo_map")


def _client_names(given: Iterable[str], specs: Specs) -> dict[str, str]:
    """Signature key -> what the client calls it, in the client's order; names that mean no input are left out."""
    called: dict[str, str] = {}
    for name in given:
        spec = find_spec(specs, name)
        if spec is None:
            continue
        if spec.name in called:
            raise _invalid(f"Input {spec.name} is given twice: {called[spec.name]}, {name}")
        called[spec.name] = name
    return called


def _require_equal_names(rows: Sequence[Any], specs: Specs) -> None:
    names = rows[0].keys()
    for name in names:
        if find_spec(specs, name) is None:
            raise _in_element(f"0 key: {name}", _invalid(f"JSON object: does not have named input: {name}"))
    complete = len(_client_names(names, specs)) == len(specs)
    for index, row in enumerate(rows):
        if not complete or type(row) is not dict or row.keys() != names:
            raise _unequal(index, row, specs)


def _unequal(index: int, row: object, specs: Specs) -> ScoringError:
    if not _is_named(row):
        return _invalid(f"Expecting object but got list at item {index} of input list")
    expected = f"JSON object: {show(row)} keys must be equal to: {','.join(sorted(specs))}"
    return _invalid(f"Failed to process element: {index} of 'instances' list. {expected}")


def _stack(rows: Sequence[Any], spec: TensorSpec, has_bools: bool, name: str | None = None) -> Tensor:
    """One input's values, row by row, as one tensor, for what `quick_tensor` could not take as a whole.

    name: the key that they stood under; None for bare values.
    """
    first: Tensor | None = None  # the first row

    def many(some: Sequence[Any]) -> Tensor | None:
        nonlocal first
        found = quick_tensor(some, spec.dtype, has_bools)
        if found is None or (first is not None and found.shape[1:] != first.shape):
            return None
        first = found[:1].reshape(found.shape[1:]) if first is None else first
        return found

    def one(index: int) -> Iterator[Tensor]:
        nonlocal first
        if name is None and _is_named(rows[index]):
            raise _invalid(f"Expecting value/list but got object at item {index} of input list")
        try:
            row = _like(first, walk(rows[index], spec.dtype))
        except ScoringError as error:
            raise _in_element(f"{index}" if name is None else f"{index} key: {name}", error) from error
        first = row if first is None else first
        yield row[None]

    return np.concatenate(list(in_runs(rows, many, one)))


def _like(before: Tensor | None, row: Tensor) -> Tensor:
    """The row, if it has the shape of those before it."""
    if row.ndim == MAX_RANK:
        raise _invalid(f"nested deeper than {MAX_RANK - 1} lists")
    if before is not None and row.size != before.size:
        raise _invalid(f"Expecting tensor size: {before.size} but got: {row.size}")
    if before is not None and row.shape != before.shape:
        wanted, got = (f"[{','.join(map(str, shape))}]" for shape in (before.shape, row.shape))
        raise _invalid(f"Expecting shape {wanted} but got: {got}")
    return row


def _in_element(where: str, error: ScoringError) -> ScoringError:
    status = f"{GRPC_CODE_NAMES[error.kind.grpc_code]}: {error.message}"
    return ScoringError(error.kind, f"Failed to process element: {where} of 'instances' list. Error: {status}")


def _invalid(message: str) -> ScoringError:
    return ScoringError(Kind.INVALID, message)

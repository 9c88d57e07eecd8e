"""What a model is asked with when it is compared: generated inputs, or a file's."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from accelserve.errors import Kind, ScoringError
from accelserve.models.self_check import sample, tiny_png
from accelserve.tensors import Signature, Tensor, TensorSpec, describe_tensor, find_spec

Inputs = Mapping[str, Tensor]  # by signature key

# What numpy raises for a file that is no .npy or .npz, or only half of one.
_UNREADABLE = (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error)
_SHOWN_BYTES = 32
_WIDE = 9  # the largest integer of a wide sample
_TEXTS = ((tiny_png(rising=True), tiny_png(rising=False)), (b"0", b"1"), (b"", b""))


def generated(
    signature: Signature, rows: int, texts: Sequence[tuple[bytes, bytes]] = ()
) -> Iterator[tuple[str, Inputs]]:
    """Samples to try in turn until the model takes one, with their names; the same in every process.

    texts: pairs to try first for string inputs (a table's own keys).
    """
    strings = any(spec.dtype.is_string for spec in signature.inputs.values())
    for pair in (*texts, *_TEXTS) if strings else _TEXTS[:1]:
        name = f"generated, strings {_shown(pair)}" if strings else "generated"
        yield name, {key: _tensor(spec, rows, pair) for key, spec in signature.inputs.items()}


def widened(name: str, inputs: Inputs) -> Iterator[tuple[str, Inputs]]:
    """The sample with numbers of both signs, then with no negative integers, which are no place in a table.

    Shapes, strings, booleans and bytes stay. Nothing where there are no other numbers; the same in every process.
    """
    if any(tensor.dtype.kind in "if" for tensor in inputs.values()):
        for least, what in ((-_WIDE, "of both signs"), (0, "of both signs, integers from 0")):
            yield f"{name}, numbers {what}", {key: _widened(tensor, least) for key, tensor in inputs.items()}


def _widened(tensor: Tensor, least: int) -> Tensor:
    generator = np.random.default_rng(20190502)
    if tensor.dtype.kind == "i":
        return generator.integers(least, _WIDE, tensor.shape, endpoint=True).astype(tensor.dtype)
    return generator.normal(0, 1, tensor.shape).astype(tensor.dtype) if tensor.dtype.kind == "f" else tensor


def _tensor(spec: TensorSpec, rows: int, texts: tuple[bytes, bytes]) -> Tensor:
    tensor = sample(spec, rows, texts)
    if spec.dtype.name == "uint8" and tensor.ndim == 4:
        return np.random.default_rng(20190501).integers(0, 256, tensor.shape, np.uint8)
    return tensor


def _shown(pair: tuple[bytes, bytes]) -> str:
    if pair == _TEXTS[0]:
        return "of a PNG"
    return " and ".join(repr(text)[1:] if len(text) <= _SHOWN_BYTES else f"of {len(text)} bytes" for text in pair)


def from_file(signature: Signature, path: Path) -> Inputs:
    """An .npz (arrays by input name), an .npy (the only input), or any other file as the bytes of a string input.

    Raises ScoringError: NOT_FOUND; INVALID naming what the file lacks.
    """
    try:
        found = _read(signature, path)
    except FileNotFoundError as error:
        raise ScoringError(Kind.NOT_FOUND, f"sample {path}: no such file") from error
    except _UNREADABLE as error:
        raise ScoringError(Kind.INVALID, f"sample {path}: {error}") from error
    _check_rows(signature, path, found)
    return found


def _read(signature: Signature, path: Path) -> Inputs:
    if path.suffix not in (".npz", ".npy"):
        return _bytes(signature, path)
    with path.open("rb") as stream:  # numpy leaves a file open that is no zip file
        loaded = np.load(stream, allow_pickle=False)
        if path.suffix == ".npz":
            return _named(signature, path, {name: loaded[name] for name in loaded.files})
        return {_only(signature, path): _as_strings(loaded)}


def _check_rows(signature: Signature, path: Path, inputs: Inputs) -> None:
    """A batch without rows is answered alike by any two models."""
    rows = {tensor.shape[:1] for tensor in inputs.values()}
    if signature.batched and (len(rows) > 1 or not rows - {(), (0,)}):
        got = ", ".join(f'"{name}" {describe_tensor(tensor)}' for name, tensor in inputs.items())
        raise _unfit(signature, path, f"with as many rows each, at least one; it has {got}")


def _named(signature: Signature, path: Path, arrays: Mapping[str, Tensor]) -> Inputs:
    found = {}
    for name, array in arrays.items():
        spec = find_spec(signature.inputs, name)
        if spec is None:
            raise _unfit(signature, path, f'it has "{name}"')
        found[spec.name] = _as_strings(array) if spec.dtype.is_string else array
        if found[spec.name].dtype != spec.dtype.numpy:
            raise _unfit(signature, path, f'its "{name}" is {describe_tensor(array)}')
    if missing := set(signature.inputs) - set(found) - set(signature.defaults):
        raise _unfit(signature, path, f"it has no {', '.join(sorted(missing))}")
    return {**signature.defaults, **found}


def _as_strings(array: Tensor) -> Tensor:
    """numpy's fixed-width strings as bytes in an object array."""
    if array.dtype.kind not in "SU":
        return array
    flat = [text if isinstance(text, bytes) else text.encode() for text in array.ravel().tolist()]
    made: Tensor = np.empty(array.shape, object)
    made.ravel()[:] = flat
    return made


def _only(signature: Signature, path: Path) -> str:
    if len(signature.inputs) != 1:
        raise _unfit(signature, path, "it holds one array; an .npz holds several")
    return next(iter(signature.inputs))


def _bytes(signature: Signature, path: Path) -> Inputs:
    key = _only(signature, path)
    spec = signature.inputs[key]
    if not spec.dtype.is_string:
        raise _unfit(signature, path, "it holds bytes; give the tensor as .npz or .npy")
    made: Tensor = np.empty((2,) if spec.has_batch_axis else (), object)  # twice: a batch of two as well as one
    made[...] = path.read_bytes()
    return {key: made.reshape(made.shape + (1,) * (len(spec.shape or made.shape) - made.ndim))}


def _unfit(signature: Signature, path: Path, got: str) -> ScoringError:
    wanted = ", ".join(f'"{name}" {spec}' for name, spec in signature.inputs.items())
    return ScoringError(Kind.INVALID, f'sample {path}: signature "{signature.name}" wants {wanted}; {got}')

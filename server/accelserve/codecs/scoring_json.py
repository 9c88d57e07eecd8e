"""Raw HTTP scoring in JSON: what /score takes besides pictures, and what it answers (DESIGN section 5)."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from accelserve.codecs.json_numbers import MIN_BYTES, NumberArray, parse_large
from accelserve.codecs.json_text import dumps, json_bytes, json_list, json_rows, json_value, parse_json
from accelserve.codecs.tfserving_json import PredictBody, read_document
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor, describe_tensor, dtype_of

_BLOCK_PLACES = 2**12  # ranked places made at a time: other threads wait for a few ms
_KEYS = ("inputs", "instances", "data")


def parse_scoring(body: bytes) -> PredictBody:
    """Read a JSON body: {"instances"} and {"inputs"} as in TF Serving, {"data"}, or a bare array of rows.

    A list under "data" is rows, as the Azure clients send them; anything else there is read as "inputs".
    `tfserving_json.bind_predict` makes the tensors. Raises ScoringError(INVALID).
    """
    document = parse_json(body) if len(body) < MIN_BYTES else parse_large(body)
    if type(document) in (list, NumberArray):
        document = {"instances": document}
    if type(document) is not dict:
        raise _invalid("the body must be a JSON object with 'instances', 'inputs' or 'data', or a JSON array of rows")
    given = [key for key in _KEYS if key in document]
    if len(given) != 1:
        raise _invalid(
            f"the body must have one of 'instances', 'inputs' and 'data', got {' and '.join(given) or 'none'}"
        )
    if given == ["data"]:
        data = document.pop("data")
        document["instances" if type(data) in (list, NumberArray) else "inputs"] = data
    return read_document(document, body)


def encode_scores(outputs: Mapping[str, Tensor], *, single: bool) -> bytes:
    """One output: its nested list; several: an object by output name.

    single: whether the request was one thing (a picture); a first axis of one row is then left out.
    Raises ScoringError(INVALID) for complex outputs.
    """
    shown = {name: _lone_row(tensor) if single else tensor for name, tensor in outputs.items()}
    if len(shown) == 1:
        return json_bytes(next(iter(shown.values())))
    return dumps({name: json_value(tensor) for name, tensor in shown.items()})


def _lone_row(tensor: Tensor) -> Tensor:
    return tensor.reshape(tensor.shape[1:]) if tensor.ndim and len(tensor) == 1 else tensor


def top_output(outputs: Mapping[str, Tensor]) -> Tensor:
    """The output that top=K ranks: the only one of floats and shape [rows, n], n >= 2. Raises ScoringError(INVALID)."""
    vectors = [tensor for tensor in outputs.values() if _is_scores(tensor)]
    if len(vectors) != 1:
        got = ", ".join(f'"{name}" {describe_tensor(tensor)}' for name, tensor in outputs.items())
        raise _invalid(f"top=K needs exactly one float vector output [rows, n], got {got}")
    return vectors[0]


def _is_scores(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and tensor.shape[1] >= 2 and "float" in dtype_of(tensor).name


def encode_top(scores: Tensor, k: int, labels: Sequence[str] | None, *, single: bool) -> bytes:
    """The k best of each row, best first: [{"index", "label", "score"}]; of equal scores the lower index first.

    scores: floats [rows, n]; NaN ranks last. k: at most n count. labels: by index; None, or too few of them: no label.
    single: whether the request was one thing; its list then stands alone. Raises ScoringError(INVALID) for k < 1.
    """
    if k < 1:
        raise _invalid(f"top must be at least 1, got {k}")
    k = min(k, scores.shape[1])
    if len(scores) == 1:
        indices = _top_of_row(scores[0], k)
        row = _places(indices, scores[0].take(indices), labels or ())
        return dumps(row if single else [row])
    step = max(1, _BLOCK_PLACES // k)
    blocks = (scores[at : at + step] for at in range(0, len(scores), step))
    return dumps(json_list((row for block in blocks for row in _best(block, k, labels or ())), step))


def _best(scores: Tensor, k: int, labels: Sequence[str]) -> Iterator[list[dict[str, object]]]:
    chosen = _top_indices(scores, k)
    values = scores[np.arange(len(scores))[:, None], chosen].reshape(-1)
    places = _places(chosen.reshape(-1), values, labels)
    for at in range(0, len(places), k):
        yield places[at : at + k]


def _places(indices: NDArray[np.intp], scores: Tensor, labels: Sequence[str]) -> list[dict[str, object]]:
    """indices, scores: [n], flat."""
    return [
        {"index": index, "label": labels[index], "score": score}
        if index < len(labels)
        else {"index": index, "score": score}
        for index, score in zip(indices.tolist(), json_rows(scores), strict=True)
    ]


def _top_of_row(scores: Tensor, k: int) -> NDArray[np.intp]:
    """`_top_indices` of one row, scores: [n], in half the time: a picture's answer is one row."""
    lost = np.fmin(-scores.astype(np.float64), np.inf)  # NaN is lost like -Infinity
    ordered = lost.copy()
    ordered.partition(k - 1)
    indices = (lost <= ordered[k - 1]).nonzero()[0]
    best: NDArray[np.intp] = indices.take(lost.take(indices).argsort(kind="stable")[:k])
    return best


def _top_indices(scores: Tensor, k: int) -> np.ndarray[tuple[int, int], np.dtype[np.intp]]:
    """Indices of the k largest of each row, 1 <= k <= n, best first; partitions, and sorts only what that found."""
    lost = -scores.astype(np.float64)
    lost[np.isnan(lost)] = np.inf
    last = np.partition(lost, k - 1, axis=1)[:, k - 1 : k]
    chosen = lost <= last
    if np.count_nonzero(chosen) > len(scores) * k:  # of those equal to the last, the first
        equal = lost == last
        room = k - (chosen ^ equal).sum(axis=1, keepdims=True)
        chosen &= ~equal | (equal.cumsum(axis=1) <= room)
    indices = chosen.nonzero()[1].reshape(len(scores), k)
    order = lost[chosen].reshape(len(scores), k).argsort(axis=1, kind="stable")
    return indices[np.arange(len(scores))[:, None], order]


def _invalid(message: str) -> ScoringError:
    return ScoringError(Kind.INVALID, message)

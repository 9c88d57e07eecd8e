"""Raw HTTP scoring in JSON: what /score takes besides pictures, and what it answers (DESIGN section 5)."""

from collections.abc import Mapping, Sequence

import numpy as np

from accelserve.codecs.json_text import dumps, json_rows, json_value, parse_json
from accelserve.codecs.tfserving_json import PredictBody, read_document
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor, describe_tensor, dtype_of

_KEYS = ("inputs", "instances", "data")


def parse_scoring(body: bytes) -> PredictBody:
    """Read a JSON body: {"instances"} and {"inputs"} as in TF Serving, {"data"}, or a bare array of rows.

    A list under "data" is rows, as the Azure clients send them; anything else there is read as "inputs".
    `tfserving_json.bind_predict` makes the tensors. Raises ScoringError(INVALID).
    """
    document = parse_json(body)
    if type(document) is list:
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
        document["instances" if type(data) is list else "inputs"] = data
    return read_document(document, body)


def encode_scores(outputs: Mapping[str, Tensor], *, single: bool) -> bytes:
    """One output: its nested list; several: an object by output name.

    single: whether the request was one thing (a picture); a first axis of one row is then left out.
    Raises ScoringError(INVALID) for complex outputs.
    """
    values = {name: json_value(_lone_row(tensor) if single else tensor) for name, tensor in outputs.items()}
    return dumps(values if len(values) != 1 else next(iter(values.values())))


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
    ranked = [_best(row, min(k, len(row)), labels or ()) for row in scores]
    return dumps(ranked[0] if single and len(ranked) == 1 else ranked)


def _best(row: Tensor, k: int, labels: Sequence[str]) -> list[dict[str, object]]:
    chosen = _top_indices(row, k)
    return [
        {"index": index, **({"label": labels[index]} if index < len(labels) else {}), "score": score}
        for index, score in zip(chosen.tolist(), json_rows(row[chosen]), strict=True)
    ]


def _top_indices(row: Tensor, k: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Indices of the k largest, 1 <= k <= n, best first; a partition, not a sort of all."""
    lost = -np.nan_to_num(row.astype(np.float64), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    last = np.partition(lost, k - 1)[k - 1]
    before = np.flatnonzero(lost < last)
    chosen = np.concatenate([before, np.flatnonzero(lost == last)[: k - len(before)]])
    return chosen[np.argsort(lost[chosen], kind="stable")]


def _invalid(message: str) -> ScoringError:
    return ScoringError(Kind.INVALID, message)

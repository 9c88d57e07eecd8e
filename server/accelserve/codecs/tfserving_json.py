"""TF Serving's REST bodies: predict, status, metadata and errors (specs/tfserving.md 2).

A request is read by `read_predict`, in TF Serving's order of checks: first the body and the signature's name; then the
caller's function looks up model and signature; `bind_predict` makes the tensors.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import orjson

from accelserve.codecs.json_binding import Specs, bind_columns, bind_rows, with_pictures
from accelserve.codecs.json_numbers import MIN_BYTES, NumberArray, parse_large, rows_together
from accelserve.codecs.json_tensors import quick_tensor
from accelserve.codecs.json_text import dumps, json_list, json_rows, json_value, parse_json, quick_bytes, show
from accelserve.errors import GRPC_CODE_NAMES, Kind, ScoringError
from accelserve.messages import VersionStatus
from accelserve.tensors import DType, Signature, Tensor, TensorSpec

_R, _L = b"rl"
_ROWS = (list, NumberArray)


class PredictBody(NamedTuple):  # which is made in a quarter of the time of a frozen dataclass
    """A body that was read but not yet measured against a signature.

    signature: empty when the body names none. row_format: "instances" (a list of rows), else "inputs".
    output_filter: the outputs wanted, our extra key; empty means all.
    text: the body, or text that holds its true and false.
    fault: what is wrong with instances and inputs; `bind_predict` raises it. values: None then.
    """

    signature: str
    row_format: bool
    values: Any
    output_filter: tuple[str, ...] = ()
    text: bytes = b""
    fault: str = ""


def read_predict(
    body: bytes, signature_called: Callable[[str], Signature], pictures: Container[str] = ()
) -> tuple[Signature, dict[str, Tensor], tuple[str, ...], bool]:
    """`read_document` and `bind_predict` in one: signature, inputs, output_filter and row_format.

    signature_called: finds a signature by its name, "" when the body names none; what it raises goes on to the caller.
    pictures: the names of signatures with `bind_predict`'s `pictures`.
    """
    small = len(body) < MIN_BYTES
    document = parse_json(body) if small else parse_large(body)
    if type(document) is dict and len(document) == 1 and type(rows := document.get("instances")) in _ROWS and rows:
        # The usual body has nothing else to look at; saying so at length takes 0.7 us.
        signature = signature_called("")
        if signature.inputs:
            specs = with_pictures(rows, signature.inputs) if signature.name in pictures else signature.inputs
            has_bools = _has_bools(body) if small else _may_have_bools(rows, body, specs)
            return signature, bind_rows(rows, specs, has_bools=has_bools), (), True
    parsed = read_document(document, body)
    signature = signature_called(parsed.signature)
    inputs = bind_predict(parsed, signature, pictures=signature.name in pictures)
    return signature, inputs, parsed.output_filter, parsed.row_format


def read_document(document: object, body: bytes) -> PredictBody:
    """What a parsed body says, unless it is no object. body: its text, or text that holds its true and false.

    Raises ScoringError(INVALID), as TF Serving does before it looks for the model.
    """
    if type(document) is not dict:
        shown = show(document.lists() if isinstance(document, NumberArray) else document)
        raise _invalid(f"JSON Value: {shown} Is not object")
    row_format = "instances" in document
    fault = _payload_fault(document)
    return PredictBody(
        signature=_signature_name(document),
        row_format=row_format,
        values=None if fault else document["instances" if row_format else "inputs"],
        output_filter=_output_filter(document),
        text=body,
        fault=fault,
    )


def _may_have_bools(values: object, text: bytes, specs: Specs) -> bool:
    """Whether true or false may stand among the values, and pass for numbers (see json_tensors)."""
    if len(text) < MIN_BYTES:
        return _has_bools(text)
    # A NumberArray looks for itself, and they cannot pass for strings: to look through 20 KB of base64 takes 22 us.
    looked = type(values) is NumberArray or all(spec.dtype.is_string for spec in specs.values())
    return looked or _has_bools(text)


def _has_bools(text: bytes) -> bool:
    # One byte is sought at memchr's speed, a word is not: bodies of numbers seldom hold an "r" or an "l".
    # As a number, for which `in` takes 0.04 us instead of 0.2.
    return (_R in text and b"true" in text) or (_L in text and b"false" in text)


def _signature_name(document: dict[str, Any]) -> str:
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        shown = show(document)
        raise _invalid(f"JSON Value: {shown} not formatted correctly. 'signature_name' key must be a string value.")
    return name


def _output_filter(document: dict[str, Any]) -> tuple[str, ...]:
    if "output_filter" not in document:
        return ()
    names = document["output_filter"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        shown = show(names)
        raise _invalid(f"JSON Value: {shown} not formatted correctly. 'output_filter' key must be a list of strings.")
    return tuple(names)


def _payload_fault(document: dict[str, Any]) -> str:
    if "instances" not in document:
        return "" if "inputs" in document else "Missing 'inputs' or 'instances' key"
    rows = document["instances"]
    if "inputs" in document:
        wrong = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
    elif type(rows) not in _ROWS:
        wrong = "Expecting 'instances' to be an list/array"
    elif not rows:
        wrong = "No values in 'instances' array"
    else:
        return ""
    return f"JSON Value: {show(document)} {wrong}"


def bind_predict(body: PredictBody, signature: Signature, *, pictures: bool = False) -> dict[str, Tensor]:
    """The body's tensors, by the names that the client used: signature keys or tensor names.

    Row format: each has the rows as its first axis. Values are checked against the signature's dtypes, not shapes.
    pictures: the only input, whatever its dtype, also takes encoded pictures as {"b64": ...}, which become strings.
    Raises ScoringError: INVALID with TF Serving's texts, UNSUPPORTED for complex inputs.
    """
    if body.fault:
        raise _invalid(body.fault)
    if not signature.inputs and not (body.values == {} and not body.row_format):
        raise _invalid(f"Failed to get input map for signature: {signature.name or 'DEFAULT'}")
    specs = with_pictures(body.values, signature.inputs) if pictures else signature.inputs
    bind = bind_rows if body.row_format else bind_columns
    return bind(body.values, specs, has_bools=_may_have_bools(body.values, body.text, specs))


def encode_predict(outputs: Mapping[str, Tensor], row_format: bool) -> bytes:
    """{"predictions": rows} or {"outputs": ...}; objects by name when there are several outputs.

    Raises ScoringError(INVALID) for complex outputs, no outputs, and in row format for outputs that have no common
    number of rows.
    """
    if len(outputs) == 1:
        ((name, tensor),) = outputs.items()
        if row_format and not tensor.ndim:
            raise _shapeless(name)
        text = quick_bytes(tensor)
        if text is None:
            text = dumps(json_value(tensor, as_b64=_as_b64(name)))
        return (b'{"predictions":' if row_format else b'{"outputs":') + text + b"}"
    if not outputs:
        raise _invalid("Cannot convert empty tensor map to JSON")
    if row_format:
        _require_common_rows(outputs)
        return dumps({"predictions": _predictions(outputs)})
    values = {name: json_value(tensor, as_b64=_as_b64(name)) for name, tensor in outputs.items()}
    return dumps({"outputs": values})


def read_together(bodies: Sequence[bytes], signature: Signature) -> tuple[dict[str, Tensor], list[int]] | None:
    """The rows of several bodies as one tensor [sum of rows, ...] of the only input, and how many rows each has.

    None unless each body is {"instances": rows of numbers}, nothing else and all of one shape: then `read_predict` has
    to look at each. Bodies are parsed one by one: two that are no documents can make one together.
    """
    if len(signature.inputs) != 1:
        return None
    (spec,) = signature.inputs.values()
    if spec.dtype.numpy.kind not in "fiu":
        return None
    large = min(map(len, bodies)) >= MIN_BYTES
    found = rows_together(bodies, spec.dtype) if large else _lists_together(bodies, spec.dtype)
    return ({spec.name: found[0]}, found[1]) if found is not None else None


def _lists_together(bodies: Sequence[bytes], dtype: DType) -> tuple[Tensor, list[int]] | None:
    """`json_numbers.rows_together` of small bodies."""
    try:
        documents = list(map(orjson.loads, bodies))
    except orjson.JSONDecodeError:
        return None
    rows: list[object] = []
    counts = []
    for document in documents:
        if type(document) is not dict or len(document) != 1:
            return None
        own = document.get("instances")
        if type(own) is not list or not own:
            return None
        rows += own
        counts.append(len(own))
    tensor = quick_tensor(rows, dtype, _has_bools(b"\n".join(bodies)))
    return (tensor, counts) if tensor is not None else None


def encode_together(outputs: Mapping[str, Tensor], counts: Sequence[int]) -> list[bytes]:
    """`encode_predict` in row format, for the next `counts[i]` rows each. Raises as it does."""
    if len(outputs) == 1 and max(counts) == 1:
        (tensor,) = outputs.values()
        text = quick_bytes(tensor) if tensor.ndim == 2 and len(tensor) == len(counts) else None
        if text is not None:
            return [b'{"predictions":[[%b]]}' % row for row in text[2:-2].split(b"],[")]
    ends = list(accumulate(counts))
    return [
        encode_predict({name: tensor[end - count : end] for name, tensor in outputs.items()}, True)
        for end, count in zip(ends, counts, strict=True)
    ]


def _predictions(outputs: Mapping[str, Tensor]) -> object:
    columns = [json_rows(tensor, as_b64=_as_b64(name)) for name, tensor in outputs.items()]
    return json_list(dict(zip(outputs, row, strict=True)) for row in zip(*columns, strict=True))


def _as_b64(name: str) -> bool:
    """TF Serving's rule for bytes that are no text; our answers may carry the tensor name with its ":0"."""
    return name.removesuffix(":0").endswith("_bytes")


def _require_common_rows(outputs: Mapping[str, Tensor]) -> None:
    rows = None
    for name, tensor in outputs.items():
        if tensor.ndim == 0:
            raise _shapeless(name)
        if rows is not None and len(tensor) != rows:
            raise _invalid(f"Tensor name: {name} has inconsistent batch size: {len(tensor)} expecting: {rows}")
        rows = len(tensor)


def _shapeless(name: str) -> ScoringError:
    return _invalid(f"Tensor name: {name} has no shape information ")


def encode_error(message: str) -> bytes:
    """{"error": message}, whatever the message holds."""
    return dumps({"error": message.encode(errors="replace").decode()})


def encode_status(versions: Sequence[VersionStatus]) -> bytes:
    """The answer of GET /v1/models/NAME, the newest version first."""
    newest_first = sorted(versions, key=lambda status: status.version, reverse=True)
    return dumps({"model_version_status": [_status(status) for status in newest_first]})


def _status(status: VersionStatus) -> dict[str, Any]:
    return {
        "version": str(status.version),
        "state": status.state,
        "status": {"error_code": GRPC_CODE_NAMES[status.error_code], "error_message": status.error_message},
    }


def encode_metadata(name: str, version: int, signatures: Mapping[str, Signature]) -> bytes:
    """The answer of GET .../metadata. Signature defaults are not shown."""
    known = {key: _signature_def(signature) for key, signature in signatures.items()}
    spec = {"name": name, "signature_name": "", "version": str(version)}
    return dumps({"model_spec": spec, "metadata": {"signature_def": {"signature_def": known}}})


def _signature_def(signature: Signature) -> dict[str, Any]:
    return {
        "inputs": {key: _tensor_info(spec) for key, spec in signature.inputs.items()},
        "outputs": {key: _tensor_info(spec) for key, spec in signature.outputs.items()},
        "method_name": signature.method_name,
        "defaults": {},
    }


def _tensor_info(spec: TensorSpec) -> dict[str, Any]:
    sizes = [{"size": str(size), "name": ""} for size in spec.shape or ()]
    shape = {"dim": sizes, "unknown_rank": spec.shape is None}
    return {"dtype": spec.dtype.tf_name, "tensor_shape": shape, "name": spec.tensor_name}


def _invalid(message: str) -> ScoringError:
    return ScoringError(Kind.INVALID, message)

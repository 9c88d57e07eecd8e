"""A model resident in an ONNX Runtime session; the library itself is not imported here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from accelserve.backends.base import Batch, BatchResult, Device, Placement
from accelserve.backends.batch_check import check_names
from accelserve.backends.onnx_errors import kind_of, one_line
from accelserve.backends.run_gate import RunGate
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor


class OnnxRuntimeSession:
    """One model in one `InferenceSession`; runs may overlap."""

    def __init__(
        self,
        model: str,
        session: Any,
        signature: Signature,
        device: Device,
        placement: Placement,
        note_lost: Callable[[Device, str], None],
    ) -> None:
        self.signatures: Mapping[str, Signature] = MappingProxyType({signature.name: signature})
        self.device = device
        self.placement = placement
        self._model = model
        self._session: Any = session
        self._note_lost = note_lost
        self._gate = RunGate(model)
        self._string_inputs = tuple(name for name, spec in signature.inputs.items() if spec.dtype.is_string)
        self._string_outputs = frozenset(name for name, spec in signature.outputs.items() if spec.dtype.is_string)

    def run(self, batch: Batch) -> BatchResult:
        check_names(self._model, self.signatures, batch)
        feed = self._with_text(batch.inputs) if self._string_inputs else {**batch.inputs}
        with self._gate:
            try:
                values = self._session.run(batch.outputs, feed)
            except Exception as error:
                raise self._run_error(error) from error
        outputs = dict(zip(batch.outputs, values, strict=True))
        for name in self._string_outputs:
            if name in outputs:
                outputs[name] = _encoded(outputs[name])
        return BatchResult(outputs)

    def close(self) -> None:
        if self._gate.close():
            self._session = None

    def _with_text(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """ONNX strings are UTF-8 text. Given bytes, the library would feed their Python literal, "b'...'"."""
        feed = dict(inputs)
        for name in self._string_inputs:
            try:
                feed[name] = _decoded(inputs[name])
            except (UnicodeDecodeError, AttributeError) as error:
                message = f'{self._model} "{name}": ONNX strings are UTF-8 text: {error}'
                raise ScoringError(Kind.INVALID, message) from error
        return feed

    def _run_error(self, error: Exception) -> ScoringError:
        kind, reason = kind_of(error), one_line(error)
        if kind is Kind.DEVICE_LOST:
            self._note_lost(self.device, reason)
        return ScoringError(kind, f"{self._model}: {reason}")


def placement_of(session: Any) -> Placement:
    """Nodes by provider, as ONNX Runtime placed them; empty where it cannot tell (before 1.23)."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return Placement()
    nodes: dict[str, int] = {}
    for part in ask():
        nodes[part.ep_name] = nodes.get(part.ep_name, 0) + len(part.get_nodes())
    return Placement(MappingProxyType(nodes))


def _decoded(tensor: Tensor) -> Tensor:
    """bytes to str, element by element; any shape."""
    text = np.empty(tensor.shape, object)
    text.ravel()[:] = [element.decode() for element in tensor.ravel().tolist()]
    return text


def _encoded(tensor: Tensor) -> Tensor:
    """str to bytes, element by element; any shape."""
    data = np.empty(tensor.shape, object)
    data.ravel()[:] = [element.encode() for element in tensor.ravel().tolist()]
    return data

"""What does not fit is refused as the input's fault, and the session works on."""

import numpy as np
import pytest

from accelserve.backends.base import Batch, Capabilities, Session
from accelserve.backends.conformance.fixtures import Checks
from accelserve.tensors import Shape, Tensor


class RefusalChecks(Checks):
    def test_an_unknown_output_is_refused(self, session: Session, limits: Capabilities) -> None:
        batch = Batch(self.signature, self.sample_inputs(1), ("no such output",), 1)
        self._assert_refused(session, batch, limits)

    def test_an_unknown_input_is_refused(self, session: Session, limits: Capabilities) -> None:
        inputs = {**self.sample_inputs(1), "no such input": np.zeros(1, np.float32)}
        self._assert_refused(session, Batch(self.signature, inputs, self._outputs(session), 1), limits)

    def test_a_missing_input_is_refused(self, session: Session, limits: Capabilities) -> None:
        self._assert_refused(session, Batch(self.signature, {}, self._outputs(session), 1), limits)

    def test_an_unknown_signature_is_refused(self, session: Session, limits: Capabilities) -> None:
        batch = Batch("no such signature", self.sample_inputs(1), self._outputs(session), 1)
        self._assert_refused(session, batch, limits)

    def test_a_wrong_dtype_is_refused_and_not_cast(self, session: Session, limits: Capabilities) -> None:
        inputs = {name: np.zeros(tensor.shape, _other_dtype(tensor)) for name, tensor in self.sample_inputs(1).items()}
        self._assert_refused(session, Batch(self.signature, inputs, self._outputs(session), 1), limits)

    def test_a_wrong_shape_is_refused_where_shapes_are_strict(self, session: Session, limits: Capabilities) -> None:
        signature = session.signatures[self.signature]
        wrong = {name: _wrong_shape(spec.shape) for name, spec in signature.inputs.items()}
        if not signature.strict_shapes or None in wrong.values():
            pytest.skip("the graph decides which shapes fit")
        inputs = {name: np.zeros(wrong[name] or (), spec.dtype.numpy) for name, spec in signature.inputs.items()}
        self._assert_refused(session, Batch(self.signature, inputs, self._outputs(session), 1), limits)


def _other_dtype(tensor: Tensor) -> type[np.generic]:
    return np.int64 if tensor.dtype != np.int64 else np.float64


def _wrong_shape(shape: Shape | None) -> Shape | None:
    """A shape that does not fit: one more axis; None when every shape may."""
    return None if shape is None else (*(max(size, 1) for size in shape), 7)

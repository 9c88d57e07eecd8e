"""The checks that every back end passes whose sessions take pixels.

class Sample(PictureConformance):
    preprocessing = Preprocessing((224, 224), layout="NCHW", scale=(1 / 255,))
    ...  # the rest as in BackendConformance; the sample's one input is a picture of floats
"""

import numpy as np
import pytest

from accelserve.backends.base import Batch, Capabilities, Session, TakesPixels, buffers_of
from accelserve.backends.conformance.fixtures import Checks
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import Signature, Tensor


class PictureChecks(Checks):
    """preprocessing: how a picture becomes a row of the sample's one input."""

    preprocessing: Preprocessing

    def test_pixels_get_the_answer_of_the_row_that_they_become(self, session: Session, limits: Capabilities) -> None:
        steps, taken = self.preprocessing, self._take_pixels(session)
        pixels = _pixels(steps, 3)
        assert taken.name not in session.signatures
        (spec,) = session.signatures[self.signature].inputs.values()
        together = self._run(session, {spec.name: _normalised(pixels, steps, spec.dtype.numpy)})
        self._assert_same(self._run(session, {spec.name: pixels}, taken.name), together, limits)
        for row in range(3):
            alone = self._run(session, {spec.name: pixels[row : row + 1]}, taken.name)
            self._assert_same(alone, {k: v[row : row + 1] for k, v in together.items()}, limits)

    def test_pixels_in_memory_that_it_lends_get_the_same_answer(self, session: Session, limits: Capabilities) -> None:
        steps, taken = self.preprocessing, self._take_pixels(session)
        (name,) = taken.inputs
        lent = buffers_of(session)(taken.name, 2)
        if lent is None:
            pytest.skip("it lends no memory for pixels")
        assert (lent[name].dtype, lent[name].shape) == (np.dtype(np.uint8), (2, *steps.size, steps.channels))
        wanted = self._run(session, {name: _pixels(steps, 2)}, taken.name)
        np.copyto(lent[name], _pixels(steps, 2))
        self._assert_same(self._run(session, lent, taken.name), wanted, limits)

    def test_pixels_and_rows_in_turn_leave_each_other_alone(self, session: Session, limits: Capabilities) -> None:
        steps, taken = self.preprocessing, self._take_pixels(session)
        (name,) = taken.inputs
        rows, pixels = self.sample_inputs(1), {name: _pixels(steps, 1)}
        of_rows, of_pixels = self._run(session, rows), self._run(session, pixels, taken.name)
        for _ in range(4):  # every slot that there may be
            self._assert_same(self._run(session, rows), of_rows, limits)
            self._assert_same(self._run(session, pixels, taken.name), of_pixels, limits)

    def test_pixels_of_another_dtype_or_size_are_refused(self, session: Session, limits: Capabilities) -> None:
        steps, taken = self.preprocessing, self._take_pixels(session)
        (name,) = taken.inputs
        pixels = _pixels(steps, 1)
        for wrong in (pixels.astype(np.float32), pixels[:, 1:]):
            self._assert_refused(session, Batch(taken.name, {name: wrong}, self._outputs(session), 1), limits)

    def _take_pixels(self, session: Session) -> Signature:
        ability: object = session
        assert isinstance(ability, TakesPixels), "it takes no pixels"
        return ability.take_pixels(self.signature, self.preprocessing)


def _pixels(steps: Preprocessing, rows: int) -> Tensor:
    """Row i is the same for every `rows` above i."""
    random = np.random.default_rng(3)
    return random.integers(0, 256, (8, *steps.size, steps.channels), np.uint8)[:rows]


def _normalised(pixels: Tensor, steps: Preprocessing, dtype: np.dtype[np.generic]) -> Tensor:
    mean, scale = np.array(steps.mean, np.float32), np.array(steps.scale, np.float32)
    values = (pixels.astype(np.float32) - mean) * scale
    return np.asarray(values if steps.layout == "NHWC" else values.transpose(0, 3, 1, 2), dtype)

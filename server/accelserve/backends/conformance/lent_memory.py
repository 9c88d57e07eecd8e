"""Memory that a session lends so that batches are stacked into it (`Buffered`); skipped where it lends none."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from accelserve.backends.base import Capabilities, Session, buffers_of
from accelserve.backends.conformance.fixtures import Checks, assert_equal, copies
from accelserve.tensors import Tensor


class LentMemoryChecks(Checks):
    def test_memory_that_it_lends_fits_the_signature(self, session: Session) -> None:
        inputs = self.sample_inputs(1)
        lent = self._lent(session, 1)
        assert {name: (t.dtype, t.shape) for name, t in lent.items()} == {
            name: (t.dtype, t.shape) for name, t in inputs.items()
        }

    def test_a_batch_in_memory_that_it_lends_gets_the_same_answer(self, session: Session, limits: Capabilities) -> None:
        self._lent(session, 1)
        inputs = self.sample_inputs(1)
        self._assert_same(self._run(session, self._fill(session, inputs)), self._run(session, inputs), limits)

    def test_an_answer_stays_when_lent_memory_is_filled_again(self, session: Session) -> None:
        self._lent(session, 1)
        first = self._run(session, self._fill(session, self._row(0)))
        before = copies(first)
        for _ in range(4):  # every slot that there may be
            self._run(session, self._fill(session, self._row(1)))
        assert_equal(first, before)

    def test_lent_memory_that_is_never_run_hurts_nobody(self, session: Session, limits: Capabilities) -> None:
        inputs = self.sample_inputs(1)
        before = copies(self._run(session, inputs))
        self._lent(session, 1)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: self._fill(session, inputs), range(8)))
        self._fill(session, {name: np.zeros_like(tensor) for name, tensor in inputs.items()})
        self._assert_same(self._run(session, inputs), before, limits)

    def test_no_memory_is_lent_for_what_it_does_not_have(self, session: Session) -> None:
        self._lent(session, 1)
        assert buffers_of(session)("no such signature", 1) is None

    def _lent(self, session: Session, rows: int) -> Mapping[str, Tensor]:
        lent = buffers_of(session)(self.signature, rows)
        if lent is None:
            pytest.skip("it lends no memory")
        return lent

    def _fill(self, session: Session, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs in the session's own memory; where all of it is in use, in ours."""
        lent = buffers_of(session)(self.signature, len(next(iter(inputs.values())))) or copies(inputs)
        for name, tensor in inputs.items():
            np.copyto(lent[name], tensor)
        return lent

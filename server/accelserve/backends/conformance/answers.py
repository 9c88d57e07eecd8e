"""Answers: what they are made of, that they repeat, that neighbours and threads leave them alone."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest

from accelserve.backends.base import Batch, Capabilities, Device, Session
from accelserve.backends.conformance.fixtures import BLAME_THE_INPUT, WAIT_S, Checks, assert_equal, copies
from accelserve.tensors import Tensor, dtype_of

_MOST_THREADS = 4
_RUNS_OF_A_THREAD = 8


class AnswerChecks(Checks):
    def test_the_session_runs_on_the_device_that_was_asked_for(self, session: Session, device: Device) -> None:
        assert isinstance(session, Session)
        assert session.device == device

    def test_every_output_has_its_declared_type_and_a_fitting_shape(self, session: Session) -> None:
        signature = session.signatures[self.signature]
        outputs = self._run(session, self.sample_inputs(1))
        assert set(outputs) == set(signature.outputs)
        for name, tensor in outputs.items():
            assert dtype_of(tensor) is signature.outputs[name].dtype
            assert not signature.strict_shapes or signature.outputs[name].accepts_shape(tensor.shape)

    def test_only_the_outputs_asked_for_are_returned(self, session: Session) -> None:
        name = list(session.signatures[self.signature].outputs)[-1]
        result = session.run(Batch(self.signature, self.sample_inputs(1), (name,), 1))
        assert list(result.outputs) == [name]

    def test_the_same_batch_gives_the_same_answer(self, session: Session, limits: Capabilities) -> None:
        inputs = self.sample_inputs(1)
        first = copies(self._run(session, inputs))
        for _ in range(3):
            self._assert_same(self._run(session, inputs), first, limits)

    def test_two_sessions_give_the_same_answer(self, open_session: Callable[[], Session], limits: Capabilities) -> None:
        if limits.models_per_device == 1:
            pytest.skip("one model per device")
        inputs = self.sample_inputs(1)
        self._assert_same(self._run(open_session(), inputs), self._run(open_session(), inputs), limits)

    def test_a_row_gets_the_same_answer_alone_and_in_a_batch(self, session: Session, limits: Capabilities) -> None:
        rows = self._rows_that_ride_together(session, limits)
        together = self._run(session, self.sample_inputs(rows))
        for row in range(rows):
            alone = self._run(session, self._row(row))
            self._assert_same(alone, {k: v[row : row + 1] for k, v in together.items()}, limits)

    def test_the_samples_rows_differ_so_that_a_mix_up_would_show(self, session: Session) -> None:
        if not session.signatures[self.signature].batched:
            pytest.skip("the sample has no rows")
        first, second = (self._run(session, self._row(row)) for row in range(2))
        assert any(not np.array_equal(first[name], second[name]) for name in first), "sample_inputs: rows 0 and 1"

    def test_padding_changes_no_answer(self, session: Session, limits: Capabilities) -> None:
        rows = self._rows_that_ride_together(session, limits)
        real = self._run(session, self._row(0))
        padded = {name: np.repeat(tensor, rows, axis=0) for name, tensor in self._row(0).items()}
        result = session.run(Batch(self.signature, padded, self._outputs(session), 1))
        assert not result.item_errors
        self._assert_same({name: tensor[:1] for name, tensor in result.outputs.items()}, real, limits)

    def test_the_inputs_are_left_as_they_were(self, session: Session) -> None:
        inputs = self.sample_inputs(1)
        before = copies(inputs)
        self._run(session, inputs)
        assert_equal(inputs, before)

    def test_inputs_that_cannot_be_written_to_are_read(self, session: Session, limits: Capabilities) -> None:
        wanted = self._run(session, self.sample_inputs(1))
        inputs = copies(self.sample_inputs(1))
        for tensor in inputs.values():
            tensor.flags.writeable = False
        self._assert_same(self._run(session, inputs), wanted, limits)

    def test_inputs_that_are_not_contiguous_are_read_right(self, session: Session, limits: Capabilities) -> None:
        inputs = self.sample_inputs(1)
        spread = {name: np.repeat(tensor, 2, axis=-1)[..., ::2] for name, tensor in inputs.items() if tensor.ndim}
        self._assert_same(self._run(session, inputs), self._run(session, {**inputs, **spread}), limits)

    def test_an_answer_shares_no_memory_with_its_inputs_or_with_another(self, session: Session) -> None:
        inputs = self.sample_inputs(1)
        first, second = self._run(session, inputs), self._run(session, inputs)
        everything = [*inputs.values(), *first.values(), *second.values()]
        for one, other in combinations(everything, 2):
            assert one is not other, "an array is given twice"
            assert not np.may_share_memory(one, other), "an answer aliases an input or another answer"

    def test_an_answer_stays_when_others_are_made_and_the_session_is_closed(self, session: Session) -> None:
        answer = self._run(session, self._row(0))
        before = copies(answer)
        for row in (1, 2, 3, 4):  # every slot that there may be
            self._run(session, self._row(row))
        session.close()
        assert_equal(answer, before)

    def test_runs_that_overlap_get_their_own_answers(self, session: Session, limits: Capabilities) -> None:
        threads = min(limits.max_inflight, _MOST_THREADS)
        if threads < 2:
            pytest.skip("one run at a time")
        wanted = [copies(self._run(session, self._row(row))) for row in range(threads)]

        def run_again_and_again(row: int) -> list[Mapping[str, Tensor]]:
            return [copies(self._run(session, self._row(row))) for _ in range(_RUNS_OF_A_THREAD)]

        with ThreadPoolExecutor(threads) as pool:
            running = [pool.submit(run_again_and_again, row) for row in range(threads)]
            for row, answers in enumerate(running):
                for answer in answers.result(WAIT_S):
                    self._assert_same(answer, wanted[row], limits)

    def test_a_bad_row_is_reported_alone(self, session: Session, limits: Capabilities) -> None:
        sample = self.inputs_with_a_bad_row()
        if sample is None:
            pytest.skip("it reports no errors of single rows")
        inputs, bad = sample
        rows = len(next(iter(inputs.values())))
        result = session.run(Batch(self.signature, inputs, self._outputs(session), rows))
        assert list(result.item_errors) == [bad]
        assert result.item_errors[bad].kind in BLAME_THE_INPUT
        for row in sorted(set(range(rows)) - {bad}):
            alone = self._run(session, {k: v[row : row + 1] for k, v in inputs.items()})
            self._assert_same(alone, {k: v[row : row + 1] for k, v in result.outputs.items()}, limits)

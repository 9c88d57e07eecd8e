"""A device that is lost while a batch runs; skipped, with the reason, where the sample cannot lose one."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest

from accelserve.backends.base import Backend, Device, DeviceState, Session
from accelserve.backends.conformance.fixtures import WAIT_S, Checks
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor


class LossChecks(Checks):
    def test_a_device_lost_mid_batch_fails_the_run_as_lost(self, session: Session) -> None:
        with ThreadPoolExecutor(1) as pool:
            ran = threading.Event()
            last = pool.submit(self._run_until_it_fails, session, ran)
            assert ran.wait(WAIT_S)
            try:
                self.lose_device(session)
            except BaseException:  # a skip: the runs have to end all the same
                session.close()
                raise
            failure = last.result(WAIT_S)
        assert failure.kind is Kind.DEVICE_LOST, failure.message

    def test_every_run_after_the_loss_fails_as_lost(self, session: Session) -> None:
        self.lose_device(session)
        for _ in range(2):
            with pytest.raises(ScoringError) as failure:
                self._run(session, self.sample_inputs(1))
            assert failure.value.kind is Kind.DEVICE_LOST, failure.value.message

    def test_health_says_that_the_device_is_lost_and_why(
        self, backend: Backend, device: Device, session: Session
    ) -> None:
        self.lose_device(session)
        with pytest.raises(ScoringError):
            self._run(session, self.sample_inputs(1))
        health = backend.health(device)
        assert health.state in (DeviceState.LOST, DeviceState.ABSENT)
        assert health.reason, "no reason is given"

    def test_a_session_on_a_lost_device_is_closed_all_the_same(self, session: Session) -> None:
        self.lose_device(session)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(session.close).result(WAIT_S)
            pool.submit(session.close).result(WAIT_S)

    def _run_until_it_fails(self, session: Session, ran: threading.Event) -> ScoringError:
        inputs: Mapping[str, Tensor] = self.sample_inputs(1)
        while True:
            try:
                self._run(session, inputs)
            except ScoringError as failure:
                return failure
            ran.set()

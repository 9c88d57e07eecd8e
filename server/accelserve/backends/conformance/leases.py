"""Exclusive devices: one holder at a time, told to whoever comes second; skipped where the device is shared."""

from collections.abc import Callable
from pathlib import Path

import pytest

from accelserve.backends.base import Backend, Device, Prepared, Session
from accelserve.backends.conformance.fixtures import Checks, copies
from accelserve.backends.lease import FileLease, acquire_lease
from accelserve.errors import Kind, ScoringError


class LeaseChecks(Checks):
    @pytest.fixture
    def exclusive(self, device: Device) -> Device:
        if not device.exclusive:
            pytest.skip("the device is shared")
        return device

    def test_a_second_holder_is_refused_and_told_the_first(self, exclusive: Device, tmp_path: Path) -> None:
        ids = {each.id for each in self.make_backend().inventory().devices}  # as another process would find them
        assert exclusive.id in ids, f"the device has another id each time: {exclusive.id}, {', '.join(sorted(ids))}"
        lease = acquire_lease(tmp_path, exclusive.id, "first")
        with pytest.raises(ScoringError, match="first") as refusal:
            acquire_lease(tmp_path, exclusive.id, "second")
        lease.release()
        assert refusal.value.kind is Kind.CONFLICT

    def test_an_exclusive_device_takes_no_model_without_a_lease(
        self, backend: Backend, exclusive: Device, prepare: Callable[[], Prepared]
    ) -> None:
        prepared = prepare()
        with pytest.raises(ScoringError, match=exclusive.id):
            backend.load(prepared, exclusive, self.options(), None).close()

    def test_a_lease_of_another_device_is_no_lease(
        self, backend: Backend, exclusive: Device, prepare: Callable[[], Prepared], tmp_path: Path
    ) -> None:
        prepared = prepare()
        other = acquire_lease(tmp_path / "others", f"{exclusive.id}-another", "somebody")
        try:
            with pytest.raises(ScoringError, match=exclusive.id):
                backend.load(prepared, exclusive, self.options(), other).close()
        finally:
            other.release()

    def test_the_lease_is_the_servers_to_release(
        self, exclusive: Device, session: Session, lease: FileLease, tmp_path: Path
    ) -> None:
        session.close()
        with pytest.raises(ScoringError) as refusal:
            acquire_lease(tmp_path / "leases", exclusive.id, "too early")
        assert refusal.value.kind is Kind.CONFLICT

    def test_after_close_and_release_another_has_the_device(
        self,
        backend: Backend,
        exclusive: Device,
        session: Session,
        lease: FileLease,
        prepare: Callable[[], Prepared],
        tmp_path: Path,
    ) -> None:
        before = copies(self._run(session, self.sample_inputs(1)))
        session.close()
        lease.release()
        other = acquire_lease(tmp_path / "leases", exclusive.id, "second")
        try:
            second = backend.load(prepare(), exclusive, self.options(), other)
            after = copies(self._run(second, self.sample_inputs(1)))
            second.close()
        finally:
            other.release()
        assert after.keys() == before.keys()

"""The checks that every back end passes, ours and a third party's; imported by test suites only (it needs pytest).

class TestMyBackend(BackendConformance):
    def make_backend(self) -> Backend: ...
    def sample_artifact(self, folder: Path) -> ModelArtifact: ...
    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]: ...
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from accelserve.backends.base import (
    API_VERSION,
    Backend,
    Batch,
    Capabilities,
    Device,
    DeviceState,
    Featured,
    ModelArtifact,
    Session,
    SessionOptions,
    buffers_of,
)
from accelserve.backends.lease import acquire_lease
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import DEFAULT_SIGNATURE, Shape, Tensor, dtype_of

BLAME_THE_INPUT = (Kind.INVALID, Kind.UNDECODABLE)
_WAIT_S = 30.0
_SCHEDULING_NS = 50_000_000  # between the run's end and the note of its time, a thread may have to wait for the GIL


class BuildsAlways:
    """An ArtifactCache that keeps nothing from run to run."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, digest: str, build: Callable[[Path], None]) -> Path:
        path = self._root / digest
        if not path.exists():
            path.mkdir(parents=True)
            build(path)
        return path


class BackendConformance:
    """Subclass it under a name that begins with Test, and say what is to be tested.

    device_kind: where the sample runs; the tests are skipped where the host has no such device, with the reason.
    tolerance: (relative, absolute), for back ends that are not deterministic. may_lack: kinds that the inventory has
    to explain when it has no device of them.
    """

    device_kind = DeviceKind.CPU
    signature = DEFAULT_SIGNATURE
    tolerance = (1e-4, 1e-6)
    may_lack: tuple[DeviceKind, ...] = ()

    def make_backend(self) -> Backend:
        raise NotImplementedError

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        """A model written to an empty folder; a run of one row should take less than a second."""
        raise NotImplementedError

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        """Inputs by signature key; row i is the same for every `rows` above i, and differs from the other rows."""
        raise NotImplementedError

    def options(self) -> SessionOptions:
        """How the sample is loaded: settings, batch sizes."""
        return SessionOptions(threads=1)

    def inputs_with_a_bad_row(self) -> tuple[Mapping[str, Tensor], int] | None:
        """A batch of several rows and the row that is reported as an item error; None: it reports none."""
        return None

    @pytest.fixture
    def backend(self) -> Backend:
        return self.make_backend()

    @pytest.fixture
    def device(self, backend: Backend) -> Device:
        inventory = backend.inventory()
        found = next((d for d in inventory.devices if d.kind is self.device_kind), None)
        if found is None:
            pytest.skip(", ".join(inventory.missing.get(self.device_kind, ("no device",))))
        return found

    @pytest.fixture
    def open_session(self, backend: Backend, device: Device, tmp_path: Path) -> Iterator[Callable[[], Session]]:
        """Opens sessions of the sample; all are closed at the end, leases released."""
        artifact = self.sample_artifact(tmp_path / "model")
        lease = acquire_lease(tmp_path / "leases", device.id, artifact.name) if device.exclusive else None
        sessions: list[Session] = []

        def open_one() -> Session:
            cache = BuildsAlways(tmp_path / "cache")
            prepared = backend.prepare(artifact, device, self.options(), cache, lambda what, done: None)
            sessions.append(backend.load(prepared, device, self.options(), lease))
            return sessions[-1]

        yield open_one
        for session in sessions:
            session.close()
        if lease is not None:
            lease.release()

    @pytest.fixture
    def session(self, open_session: Callable[[], Session]) -> Session:
        return open_session()

    @pytest.fixture
    def limits(self, backend: Backend, device: Device) -> Capabilities:
        return backend.capabilities(device, self.options())

    def test_it_speaks_this_version_of_the_interface(self, backend: Backend) -> None:
        assert backend.api_version == API_VERSION
        assert backend.name

    def test_its_inventory_explains_each_kind_that_it_lacks(self, backend: Backend) -> None:
        inventory = backend.inventory()
        there = {device.kind for device in inventory.devices}
        for kind in self.may_lack:
            assert kind in there or any(inventory.missing.get(kind, ())), (
                f"nothing explains why there is no {kind.value}"
            )
        assert len({device.id for device in inventory.devices}) == len(inventory.devices), "device ids repeat"

    def test_its_features_are_told_with_what_they_lack(self, backend: Backend) -> None:
        if not isinstance(backend, Featured):
            pytest.skip("it tells of no features")
        for name, lacks in backend.features().items():
            assert name
            assert all(lacks), f"{name}: a missing piece without a name"

    def test_its_capabilities_name_the_samples_format(self, limits: Capabilities, tmp_path: Path) -> None:
        assert self.sample_artifact(tmp_path / "model").format in limits.formats

    def test_a_device_of_the_inventory_is_healthy(self, backend: Backend, device: Device) -> None:
        assert backend.health(device).state in (DeviceState.READY, DeviceState.FREE)

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
        self._assert_same(self._run(session, inputs), self._run(session, inputs), limits)

    def test_two_sessions_give_the_same_answer(self, open_session: Callable[[], Session], limits: Capabilities) -> None:
        if limits.models_per_device == 1:
            pytest.skip("one model per device")
        inputs = self.sample_inputs(1)
        self._assert_same(self._run(open_session(), inputs), self._run(open_session(), inputs), limits)

    def test_a_row_gets_the_same_answer_alone_and_in_a_batch(self, session: Session, limits: Capabilities) -> None:
        rows = min(limits.max_batch or 5, 5)
        if not session.signatures[self.signature].batched or rows < 2:
            pytest.skip("the sample's rows cannot ride together")
        together = self._run(session, self.sample_inputs(rows))
        for row in range(rows):
            alone = self._run(session, {k: v[row : row + 1] for k, v in self.sample_inputs(rows).items()})
            self._assert_same(alone, {k: v[row : row + 1] for k, v in together.items()}, limits)

    def test_the_inputs_are_left_as_they_were(self, session: Session) -> None:
        inputs = self.sample_inputs(1)
        before = {name: tensor.copy() for name, tensor in inputs.items()}
        self._run(session, inputs)
        for name, tensor in before.items():
            np.testing.assert_array_equal(inputs[name], tensor)

    def test_inputs_that_are_not_contiguous_are_read_right(self, session: Session, limits: Capabilities) -> None:
        inputs = self.sample_inputs(1)
        spread = {name: np.repeat(tensor, 2, axis=-1)[..., ::2] for name, tensor in inputs.items() if tensor.ndim}
        self._assert_same(self._run(session, inputs), self._run(session, {**inputs, **spread}), limits)

    def test_memory_that_it_lends_fits_the_signature(self, session: Session) -> None:
        inputs = self.sample_inputs(1)
        lent = self._lent(session, 1)
        assert {name: (t.dtype, t.shape) for name, t in lent.items()} == {
            name: (t.dtype, t.shape) for name, t in inputs.items()
        }

    def test_a_batch_in_memory_that_it_lends_gets_the_same_answer(self, session: Session, limits: Capabilities) -> None:
        inputs = self.sample_inputs(1)
        self._assert_same(self._run(session, self._fill(session, inputs)), self._run(session, inputs), limits)

    def test_an_answer_stays_when_lent_memory_is_filled_again(self, session: Session) -> None:
        rows = {name: tensor[1:2] for name, tensor in self.sample_inputs(2).items()}
        first = self._run(session, self._fill(session, self.sample_inputs(1)))
        before = {name: tensor.copy() for name, tensor in first.items()}
        for _ in range(4):  # every slot that there may be
            self._run(session, self._fill(session, rows))
        for name, tensor in before.items():
            np.testing.assert_array_equal(first[name], tensor)

    def test_lent_memory_that_is_never_run_hurts_nobody(self, session: Session, limits: Capabilities) -> None:
        inputs = self.sample_inputs(1)
        before = self._run(session, inputs)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: self._fill(session, inputs), range(8)))
        self._fill(session, {name: np.zeros_like(tensor) for name, tensor in inputs.items()})
        self._assert_same(self._run(session, inputs), before, limits)

    def test_no_memory_is_lent_for_what_it_does_not_have(self, session: Session) -> None:
        assert buffers_of(session)("no such signature", 1) is None

    def test_an_unknown_output_is_refused(self, session: Session) -> None:
        self._assert_refused(session, Batch(self.signature, self.sample_inputs(1), ("no such output",), 1))

    def test_an_unknown_input_is_refused(self, session: Session) -> None:
        inputs = {**self.sample_inputs(1), "no such input": np.zeros(1, np.float32)}
        self._assert_refused(session, Batch(self.signature, inputs, self._outputs(session), 1))

    def test_a_missing_input_is_refused(self, session: Session) -> None:
        self._assert_refused(session, Batch(self.signature, {}, self._outputs(session), 1))

    def test_an_unknown_signature_is_refused(self, session: Session) -> None:
        self._assert_refused(session, Batch("no such signature", self.sample_inputs(1), self._outputs(session), 1))

    def test_a_wrong_dtype_is_refused_and_not_cast(self, session: Session) -> None:
        inputs = {name: np.zeros(tensor.shape, _other_dtype(tensor)) for name, tensor in self.sample_inputs(1).items()}
        self._assert_refused(session, Batch(self.signature, inputs, self._outputs(session), 1))

    def test_a_wrong_shape_is_refused_where_shapes_are_strict(self, session: Session) -> None:
        signature = session.signatures[self.signature]
        wrong = {name: _wrong_shape(spec.shape) for name, spec in signature.inputs.items()}
        if not signature.strict_shapes or None in wrong.values():
            pytest.skip("the graph decides which shapes fit")
        inputs = {name: np.zeros(wrong[name] or (), spec.dtype.numpy) for name, spec in signature.inputs.items()}
        self._assert_refused(session, Batch(self.signature, inputs, self._outputs(session), 1))

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

    def test_closing_twice_does_nothing(self, session: Session) -> None:
        session.close()
        session.close()

    def test_a_closed_session_refuses_to_run(self, session: Session) -> None:
        session.close()
        with pytest.raises(ScoringError):
            self._run(session, self.sample_inputs(1))

    def test_close_waits_for_the_run_under_way(self, session: Session) -> None:
        inputs, ran = self.sample_inputs(1), threading.Event()

        def run_until_refused() -> int:
            """When the last run ended, on the monotonic clock."""
            ended = time.monotonic_ns()
            while True:
                try:
                    self._run(session, inputs)
                except ScoringError:
                    return ended
                ended = time.monotonic_ns()
                ran.set()

        with ThreadPoolExecutor(1) as pool:
            last = pool.submit(run_until_refused)
            assert ran.wait(_WAIT_S)
            session.close()
            closed = time.monotonic_ns()
            assert last.result(_WAIT_S) <= closed + _SCHEDULING_NS

    def test_a_second_session_works_after_the_first_was_closed(
        self, open_session: Callable[[], Session], limits: Capabilities
    ) -> None:
        first = open_session()
        before = self._run(first, self.sample_inputs(1))
        first.close()
        self._assert_same(before, self._run(open_session(), self.sample_inputs(1)), limits)

    def test_an_exclusive_device_is_leased_once(self, device: Device, tmp_path: Path) -> None:
        if not device.exclusive:
            pytest.skip("the device is shared")
        lease = acquire_lease(tmp_path, device.id, "first")
        with pytest.raises(ScoringError, match="first") as refusal:
            acquire_lease(tmp_path, device.id, "second")
        lease.release()
        assert refusal.value.kind is Kind.CONFLICT

    def test_a_missing_model_is_refused_with_a_reason(self, backend: Backend, device: Device, tmp_path: Path) -> None:
        sample = self.sample_artifact(tmp_path / "model")
        artifact = ModelArtifact("absent", 1, sample.format, tmp_path / "absent" / sample.path.name)
        cache = BuildsAlways(tmp_path / "cache")
        with pytest.raises(ScoringError, match="absent") as refusal:
            backend.prepare(artifact, device, SessionOptions(), cache, lambda what, done: None)
        assert refusal.value.kind is Kind.PRECONDITION

    def test_an_unknown_setting_is_refused(self, backend: Backend, device: Device, tmp_path: Path) -> None:
        artifact = self.sample_artifact(tmp_path / "model")
        options = SessionOptions(extra={"no such setting": 1})
        cache = BuildsAlways(tmp_path / "cache")
        prepared = backend.prepare(artifact, device, SessionOptions(), cache, lambda what, done: None)
        with pytest.raises(ScoringError, match="no such setting"):
            backend.load(prepared, device, options, None)

    def _lent(self, session: Session, rows: int) -> Mapping[str, Tensor]:
        lent = buffers_of(session)(self.signature, rows)
        if lent is None:
            pytest.skip("it lends no memory")
        return lent

    def _fill(self, session: Session, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The inputs in the session's own memory; where all of it is in use, in ours."""
        lent = buffers_of(session)(self.signature, len(next(iter(inputs.values())))) or inputs
        for name, tensor in inputs.items():
            np.copyto(lent[name], tensor)
        return lent

    def _outputs(self, session: Session) -> tuple[str, ...]:
        return tuple(session.signatures[self.signature].outputs)

    def _run(self, session: Session, inputs: Mapping[str, Tensor], name: str = "") -> Mapping[str, Tensor]:
        """name: of a signature with the sample's outputs; "": the sample's own."""
        rows = len(next(iter(inputs.values()))) if session.signatures[self.signature].batched else 1
        return session.run(Batch(name or self.signature, inputs, self._outputs(session), rows)).outputs

    def _assert_refused(self, session: Session, batch: Batch) -> None:
        """The input is to blame, and the session still works."""
        before = self._run(session, self.sample_inputs(1))
        with pytest.raises(ScoringError) as refusal:
            session.run(batch)
        assert refusal.value.kind in BLAME_THE_INPUT, refusal.value.message
        assert set(self._run(session, self.sample_inputs(1))) == set(before)

    def _assert_same(self, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], limits: Capabilities) -> None:
        relative, absolute = (0.0, 0.0) if limits.deterministic else self.tolerance
        assert got.keys() == wanted.keys()
        for name, tensor in got.items():
            if dtype_of(tensor).is_string:
                np.testing.assert_array_equal(tensor, wanted[name])
            else:
                numbers, expected = (np.asarray(t, _widest(t)) for t in (tensor, wanted[name]))
                np.testing.assert_allclose(numbers, expected, rtol=relative, atol=absolute)


def _other_dtype(tensor: Tensor) -> type[np.generic]:
    return np.int64 if tensor.dtype != np.int64 else np.float64


def _wrong_shape(shape: Shape | None) -> Shape | None:
    """A shape that does not fit: one more axis; None when every shape may."""
    return None if shape is None else (*(max(size, 1) for size in shape), 7)


def _widest(tensor: Tensor) -> type[np.float64] | type[np.complex128]:
    return np.complex128 if tensor.dtype.kind == "c" else np.float64

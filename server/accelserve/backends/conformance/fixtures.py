"""What the checks stand on: the sample's back end, device and sessions, all closed at the end; and how to ask them."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from accelserve.backends.base import (
    Backend,
    Batch,
    Capabilities,
    Device,
    ModelArtifact,
    Prepared,
    Session,
)
from accelserve.backends.conformance.sample import Sample
from accelserve.backends.lease import FileLease, acquire_lease
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor, dtype_of

BLAME_THE_INPUT = (Kind.INVALID, Kind.UNDECODABLE)
WAIT_S = 30.0  # for what happens at once
_ARTIFACT = pytest.StashKey[ModelArtifact]()
_CACHE = pytest.StashKey[Path]()


class CountingCache:
    """An ArtifactCache. built: the digests that were built by this object, in order."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.built: list[str] = []

    def folder(self, digest: str, build: Callable[[Path], None]) -> Path:
        path = self._root / digest
        if not path.exists():
            path.mkdir(parents=True)
            self.built.append(digest)
            build(path)
        return path


class Checks(Sample):
    """The themes' common ground; each theme adds checks and nothing else."""

    @pytest.fixture
    def backend(self) -> Backend:
        return self.make_backend()

    @pytest.fixture
    def device(self, backend: Backend) -> Device:
        inventory = backend.inventory()
        found = next((d for d in inventory.devices if d.kind is self.device_kind), None)
        if found is None:
            lacks = ", ".join(inventory.missing.get(self.device_kind, ("no reason is given",)))
            pytest.skip(f"NOT TESTED: there is no {self.device_kind.value}: {lacks}")
        return found

    @pytest.fixture
    def artifact(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelArtifact:
        """The sample's model, which no check changes: made once for all checks of a class."""
        made: pytest.Stash = request.node.getparent(pytest.Class).stash
        if _ARTIFACT not in made:
            made[_ARTIFACT] = self.sample_artifact(tmp_path_factory.mktemp("sample") / "model")
        return made[_ARTIFACT]

    @pytest.fixture
    def cache(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CountingCache:
        """What was prepared stays for the checks of a class, as it stays from one start of a server to the next."""
        made: pytest.Stash = request.node.getparent(pytest.Class).stash
        if _CACHE not in made:
            made[_CACHE] = tmp_path_factory.mktemp("cache")
        return CountingCache(made[_CACHE])

    @pytest.fixture
    def lease(self, device: Device, artifact: ModelArtifact, tmp_path: Path) -> Iterator[FileLease | None]:
        """The device's, where it is exclusive; released after the sessions are closed."""
        held = acquire_lease(tmp_path / "leases", device.id, artifact.name) if device.exclusive else None
        yield held
        if held is not None:
            held.release()

    @pytest.fixture
    def prepare(
        self, backend: Backend, device: Device, artifact: ModelArtifact, cache: CountingCache
    ) -> Callable[[], Prepared]:
        return lambda: backend.prepare(artifact, device, self.options(), cache, lambda what, done: None)

    @pytest.fixture
    def open_session(
        self, backend: Backend, device: Device, lease: FileLease | None, prepare: Callable[[], Prepared]
    ) -> Iterator[Callable[[], Session]]:
        """Opens sessions of the sample; all are closed at the end."""
        sessions: list[Session] = []

        def open_one() -> Session:
            sessions.append(backend.load(prepare(), device, self.options(), lease))
            return sessions[-1]

        yield open_one
        for session in sessions:
            session.close()

    @pytest.fixture
    def session(self, open_session: Callable[[], Session]) -> Session:
        return open_session()

    @pytest.fixture
    def limits(self, backend: Backend, device: Device) -> Capabilities:
        return backend.capabilities(device, self.options())

    def _row(self, row: int) -> Mapping[str, Tensor]:
        """One row of the sample's, as a batch of its own."""
        return {name: tensor[row : row + 1] for name, tensor in self.sample_inputs(row + 1).items()}

    def _rows_that_ride_together(self, session: Session, limits: Capabilities) -> int:
        """From 2 to 5, as many as a run takes; the check is skipped where that is one."""
        rows = min(self._most_rows(limits), 5)
        if not session.signatures[self.signature].batched or rows < 2:
            pytest.skip("the sample's rows cannot ride together")
        return rows

    def _most_rows(self, limits: Capabilities) -> int:
        """Of one run, by the device and by what was asked for."""
        asked = self.options().max_batch_size
        return asked if limits.max_batch is None else min(asked, limits.max_batch)

    def _outputs(self, session: Session) -> tuple[str, ...]:
        return tuple(session.signatures[self.signature].outputs)

    def _run(self, session: Session, inputs: Mapping[str, Tensor], name: str = "") -> Mapping[str, Tensor]:
        """name: of a signature with the sample's outputs; "": the sample's own."""
        rows = len(next(iter(inputs.values()))) if session.signatures[self.signature].batched else 1
        result = session.run(Batch(name or self.signature, inputs, self._outputs(session), rows))
        assert not result.item_errors, f"rows that are right were refused: {dict(result.item_errors)}"
        return result.outputs

    def _assert_refused(self, session: Session, batch: Batch, limits: Capabilities) -> None:
        """The input is to blame, and the session still works."""
        before = self._run(session, self.sample_inputs(1))
        with pytest.raises(ScoringError) as refusal:
            session.run(batch)
        assert refusal.value.kind in BLAME_THE_INPUT, refusal.value.message
        self._assert_same(self._run(session, self.sample_inputs(1)), before, limits)

    def _assert_same(self, got: Mapping[str, Tensor], wanted: Mapping[str, Tensor], limits: Capabilities) -> None:
        relative, absolute = (0.0, 0.0) if limits.deterministic else self.tolerance
        assert got.keys() == wanted.keys()
        for name, tensor in got.items():
            if dtype_of(tensor).is_string:
                np.testing.assert_array_equal(tensor, wanted[name])
            else:
                numbers, expected = (np.asarray(t, _widest(t)) for t in (tensor, wanted[name]))
                np.testing.assert_allclose(numbers, expected, rtol=relative, atol=absolute)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.copy() for name, tensor in tensors.items()}


def assert_equal(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Bit by bit, but that every NaN is alike."""
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(got[name], tensor)


def _widest(tensor: Tensor) -> type[np.float64] | type[np.complex128]:
    return np.complex128 if tensor.dtype.kind == "c" else np.float64

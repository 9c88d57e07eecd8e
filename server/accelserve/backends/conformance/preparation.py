"""What happens before a model is resident: slow work, told of as it goes on, done once."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from accelserve.backends.base import Backend, Capabilities, Device, ModelArtifact, Prepared, Session
from accelserve.backends.conformance.fixtures import Checks, CountingCache, copies
from accelserve.backends.lease import FileLease
from accelserve.errors import Kind, ScoringError


class PreparationChecks(Checks):
    def test_progress_goes_from_0_to_1_and_never_back(
        self, backend: Backend, device: Device, artifact: ModelArtifact, cache: CountingCache
    ) -> None:
        told: list[tuple[str, float]] = []
        backend.prepare(artifact, device, self.options(), cache, lambda what, done: told.append((what, done)))
        fractions = [done for _, done in told]
        assert all(what for what, _ in told), "a step without a name"
        assert all(0.0 <= done <= 1.0 for done in fractions), fractions
        assert fractions == sorted(fractions), fractions

    def test_what_was_prepared_once_comes_from_the_cache(
        self, backend: Backend, device: Device, artifact: ModelArtifact, tmp_path: Path
    ) -> None:
        cache = CountingCache(tmp_path / "empty")

        def prepare() -> Prepared:
            return backend.prepare(artifact, device, self.options(), cache, lambda what, done: None)

        first = prepare()
        built = list(cache.built)
        second = prepare()
        assert second.digest == first.digest
        assert second.artifact == first.artifact
        assert cache.built == built, "the same model was prepared twice"

    def test_preparing_leaves_the_model_as_it_was(
        self, artifact: ModelArtifact, prepare: Callable[[], Prepared]
    ) -> None:
        before = _files(artifact.path)
        prepare()
        assert _files(artifact.path) == before

    def test_preparing_leaves_a_session_that_serves_alone(
        self, session: Session, prepare: Callable[[], Prepared], limits: Capabilities
    ) -> None:
        """The next version is prepared while the old one has the device."""
        before = copies(self._run(session, self.sample_inputs(1)))
        prepare()
        self._assert_same(self._run(session, self.sample_inputs(1)), before, limits)

    def test_a_missing_model_is_refused_with_a_reason(
        self, backend: Backend, device: Device, artifact: ModelArtifact, cache: CountingCache, tmp_path: Path
    ) -> None:
        absent = ModelArtifact("absent", 1, artifact.format, tmp_path / "absent" / artifact.path.name)
        with pytest.raises(ScoringError, match="absent") as refusal:
            backend.prepare(absent, device, self.options(), cache, lambda what, done: None)
        assert refusal.value.kind is Kind.PRECONDITION

    def test_an_unknown_setting_is_refused_by_name(
        self,
        backend: Backend,
        device: Device,
        artifact: ModelArtifact,
        cache: CountingCache,
        lease: FileLease | None,
    ) -> None:
        options = replace(self.options(), extra={**self.options().extra, "no such setting": 1})

        def prepare_and_load() -> None:
            prepared = backend.prepare(artifact, device, options, cache, lambda what, done: None)
            backend.load(prepared, device, options, lease).close()

        with pytest.raises(ScoringError, match="no such setting"):
            prepare_and_load()


def _files(path: Path) -> dict[str, bytes]:
    """What a model is made of, by path."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return {str(file): file.read_bytes() for file in files}

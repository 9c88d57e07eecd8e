"""The checks that every back end passes, ours and a third party's (docs/accelerators.md); it needs pytest.

    pytest --pyargs accelserve.backends.conformance --backend NAME

runs them for the samples of a back end: classes like this one, which entry points of the group
`accelserve.conformance` name, NAME or NAME.VARIANT.

    class Sample(BackendConformance):
        def make_backend(self) -> Backend: ...
        def sample_artifact(self, folder: Path) -> ModelArtifact: ...
        def sample_inputs(self, rows: int) -> Mapping[str, Tensor]: ...
"""

from accelserve.backends.conformance.sample import rows_of_floats
from accelserve.backends.conformance.suite import BackendConformance, PictureConformance

__all__ = ["BackendConformance", "PictureConformance", "rows_of_floats"]

"""What the conformance kit asks of the back end `synthetic`."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from accelserve.backends.base import Backend, Capabilities, Device, ModelArtifact, Session
from accelserve.backends.conformance import BackendConformance, rows_of_floats
from accelserve.backends.synthetic.backend import SyntheticBackend, SyntheticSession
from accelserve.devices import DeviceKind
from accelserve.tensors import Tensor

DOUBLES = """
behaviour = "double"
item_error_if_contains = 13
[inputs.x]
dtype = "float32"
shape = [-1, 2]
output = "y"
"""


class SyntheticSample(BackendConformance):
    def make_backend(self) -> Backend:
        return SyntheticBackend(sleep=lambda seconds: None)

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        folder.mkdir(exist_ok=True)
        path = folder / "synthetic.toml"
        path.write_text(DOUBLES)
        return ModelArtifact("double", 1, "synthetic", path)

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"x": rows_of_floats(rows, 2)}

    def inputs_with_a_bad_row(self) -> tuple[Mapping[str, Tensor], int]:
        return {"x": np.array([[1, 2], [13, 1], [3, 4]], np.float32)}, 1

    def lose_device(self, session: Session) -> None:
        assert isinstance(session, SyntheticSession)
        session.lose_device()


class ExclusiveSyntheticSample(SyntheticSample):
    """On a device that one process may hold and that takes one row at a time, as an FPGA does."""

    device_kind = DeviceKind.FPGA_EMULATOR

    def make_backend(self) -> Backend:
        device = Device("fpga-emulator:0", DeviceKind.FPGA_EMULATOR, "played", exclusive=True, emulated=True)
        limits = Capabilities(frozenset({"synthetic"}), max_batch=1, models_per_device=1, deterministic=True)
        return SyntheticBackend(lambda seconds: None, device, limits)

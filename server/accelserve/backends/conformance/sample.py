"""What a back end says of itself to be checked: a model, inputs for it, and how to break its device."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from accelserve.backends.base import Backend, ModelArtifact, Session, SessionOptions
from accelserve.devices import DeviceKind
from accelserve.tensors import DEFAULT_SIGNATURE, Tensor


class Sample:
    """The first three methods are wanted; the rest says more than the defaults.

    device_kind: where the sample runs; the checks are skipped where the host has no such device, with the reason.
    tolerance: (relative, absolute), for back ends that are not deterministic. may_lack: kinds that the inventory has
    to explain when it has no device of them.
    """

    device_kind = DeviceKind.CPU
    signature = DEFAULT_SIGNATURE
    tolerance = (1e-4, 1e-6)
    may_lack: tuple[DeviceKind, ...] = ()

    def make_backend(self) -> Backend:
        raise NotImplementedError(f"{type(self).__name__} has to say which back end is checked")

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        """A model written to `folder`, which is absent; a run of one row takes less than a second."""
        raise NotImplementedError(f"{type(self).__name__} has to write a model")

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        """Inputs by signature key; row i is the same for every `rows` above i, and gets another answer than the others.

        rows: 1 to 8.
        """
        raise NotImplementedError(f"{type(self).__name__} has to say what the model is asked")

    def options(self) -> SessionOptions:
        """How the sample is loaded: settings, batch sizes; of the rows that a run may have, 5 are asked for at most."""
        return SessionOptions(threads=1, max_batch_size=8)

    def inputs_with_a_bad_row(self) -> tuple[Mapping[str, Tensor], int] | None:
        """A batch of several rows and the row that is reported as an item error; None: it reports none."""
        return None

    def lose_device(self, session: Session) -> None:
        """Break the session's device, as a pulled card would: called while a run may be under way.

        Every run that ends after it fails as DEVICE_LOST, and `Backend.health` says so.
        """
        pytest.skip("NOT TESTED: a device lost mid-batch; this sample has no lose_device")


def rows_of_floats(rows: int, *shape: int) -> Tensor:
    """float32 [rows, *shape], for `sample_inputs`; rows: at most 8."""
    return np.random.default_rng(0).normal(size=(8, *shape)).astype(np.float32)[:rows]

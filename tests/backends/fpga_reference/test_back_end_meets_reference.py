"""The whole back end, from the file to the answer, gives the numbers of the slow reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from emulated_graphs import model, reference_of
from golden_vectors import same_values
from reference_layers import conv, linear

from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Batch, ModelArtifact, Session, SessionOptions
from accelserve.backends.fpga_emulator.backend import FpgaEmulatorBackend
from accelserve.backends.fpga_emulator.formats import parse_format
from accelserve.backends.lease import acquire_lease

ROWS = 6


@contextmanager
def served(plain: bytes, form: str, folder: Path) -> Iterator[Session]:
    file = folder / "model.onnx"
    file.write_bytes(plain)
    backend = FpgaEmulatorBackend()
    (device,) = backend.inventory().devices
    options = SessionOptions(threads=2, extra={"format": form, "max_batch": ROWS}, max_batch_size=ROWS)
    cache = FolderArtifactCache(folder / "cache")
    lease = acquire_lease(folder, device.id, "model")
    try:
        prepared = backend.prepare(ModelArtifact("model", 1, "onnx", file), device, options, cache, lambda *_: None)
        session = backend.load(prepared, device, options, lease)
        try:
            yield session
        finally:
            session.close()
    finally:
        lease.release()


def answer(session: Session, x: np.ndarray) -> np.ndarray:
    (name,) = session.signatures
    (key,) = session.signatures[name].inputs
    (output,) = session.signatures[name].outputs
    result = session.run(Batch(name, {key: x}, (output,), len(x)))
    assert not result.item_errors
    return result.outputs[output]


def values(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("text", ["msfp12", "brainwave-a10", "mxfp4_e2m1"])
class TestAnswers:
    """Where the 24-bit bound holds: then a row's numbers cannot depend on its neighbours or on the threads either."""

    def test_of_a_convolution(self, text: str, tmp_path: Path):
        x, weights = values(ROWS, 40, 6, 6, seed=1), values(8, 40, 3, 3, seed=2)
        sums = conv(x, weights, reference_of(parse_format(text)), pad=1, stride=2)
        assert sums.order_is_free().all()
        want = sums.exact().transpose(0, 3, 1, 2)
        plain = model("Conv", x, weights, strides=[2, 2], pads=[1] * 4)
        self.assert_answers(plain, text, tmp_path, x, want)

    def test_of_a_matrix_product(self, text: str, tmp_path: Path):
        x, weights = values(ROWS, 150, seed=1), values(10, 150, seed=2)
        sums = linear(x, weights, reference_of(parse_format(text)))
        assert sums.order_is_free().all()
        self.assert_answers(model("Gemm", x, weights, transB=1), text, tmp_path, x, sums.exact())

    @staticmethod
    def assert_answers(plain: bytes, text: str, folder: Path, x: np.ndarray, want: np.ndarray) -> None:
        """Together and alone."""
        with served(plain, text, folder) as session:
            assert same_values(answer(session, x), want)
            for row in range(ROWS):
                assert same_values(answer(session, x[row : row + 1]), want[row : row + 1])

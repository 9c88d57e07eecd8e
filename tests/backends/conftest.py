from collections.abc import Iterator
from pathlib import Path

import pytest
from played_gpu import Gpu

import model_builders


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    made = Gpu()
    yield made
    for session in made.sessions:
        session.close()


@pytest.fixture(scope="module")
def affine(tmp_path_factory) -> Path:
    return model_builders.onnx_affine(tmp_path_factory.mktemp("affine") / "m.onnx")

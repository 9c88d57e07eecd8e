"""TensorFlow checkpoints, read by TensorFlow: the only module here that imports it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def read_checkpoint(prefix: Path) -> tuple[Mapping[str, tuple[int, ...]], Callable[[str], NDArray[Any]]]:
    """Shapes of all variables by name, and a function that reads one. Both raise ValueError for a broken file."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    except (tf.errors.OpError, RuntimeError) as error:
        raise ValueError(str(error)) from error

    def read(name: str) -> NDArray[Any]:
        try:
            return np.asarray(reader.get_tensor(name))
        except tf.errors.OpError as error:
            raise ValueError(str(error)) from error

    return shapes, read

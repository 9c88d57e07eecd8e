"""The two models that the original's scripts were written for, small: both as TensorFlow 1 left them on disk."""

from pathlib import Path

import numpy as np

from model_builders import import_tensorflow

CLASSES = 1001
SIDE = 8


def jpeg_classifier(folder: Path) -> Path:
    """A SavedModel in `folder`: JPEG strings [-1] -> classes int64 [-1], probabilities float32 [-1, 1001]."""
    v1 = import_tensorflow().compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(v1.string, [None], name="input_tensor")

        def decode(picture):
            pixels = v1.image.decode_jpeg(picture, channels=3)
            return v1.image.resize_images(v1.cast(pixels, v1.float32) / 255, [SIDE, SIDE])

        pixels = v1.reshape(v1.map_fn(decode, images, v1.float32), [-1, SIDE * SIDE * 3])
        weights = np.random.default_rng(5).normal(0, 1, (SIDE * SIDE * 3, CLASSES)).astype(np.float32)
        scores = v1.matmul(pixels, v1.get_variable("weights", initializer=weights))
        outputs = {"classes": v1.argmax(scores, 1), "probabilities": v1.nn.softmax(scores)}
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder), {"input": images}, outputs)
    return folder


def mnist_checkpoint(folder: Path) -> Path:
    """The checkpoint `mnist-tf.model` in `folder`: network/X [-1, 784] -> network/output/MatMul [-1, 10]."""
    v1 = import_tensorflow().compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        with v1.variable_scope("network"):
            pixels = v1.placeholder(v1.float32, [None, 784], name="X")
            with v1.name_scope("output"):
                weights = np.random.default_rng(7).normal(0, 1, (784, 10)).astype(np.float32)
                v1.matmul(pixels, v1.get_variable("kernel", initializer=weights))
        session.run(v1.global_variables_initializer())
        folder.mkdir(parents=True, exist_ok=True)
        v1.train.Saver().save(session, str(folder / "mnist-tf.model"))
    return folder

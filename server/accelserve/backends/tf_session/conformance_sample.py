"""What the conformance kit asks of the back end `tf_session`: a SavedModel, which only TensorFlow can write."""

from collections.abc import Mapping
from pathlib import Path

from accelserve.backends.base import Backend, ModelArtifact
from accelserve.backends.conformance import BackendConformance, rows_of_floats
from accelserve.devices import DeviceKind
from accelserve.tensors import Tensor


class TfSessionSample(BackendConformance):
    may_lack = (DeviceKind.GPU,)

    def make_backend(self) -> Backend:
        from accelserve.backends.tf_session.backend import TfSessionBackend

        return TfSessionBackend()

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        return ModelArtifact("classifier", 1, "saved_model", saved_classifier(folder))

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"images": rows_of_floats(rows, 16)}


def saved_classifier(folder: Path) -> Path:
    """images float32 [-1, 16] -> scores float32 [-1, 8] (softmax)."""
    import tensorflow as tf

    model = tf.Module()
    model.weights = tf.Variable(rows_of_floats(8, 16).T)
    images = tf.TensorSpec([None, 16], tf.float32, "images")
    serve = tf.function(lambda images: {"scores": tf.nn.softmax(images @ model.weights)}, input_signature=[images])
    tf.saved_model.save(model, str(folder), signatures=serve)
    return folder

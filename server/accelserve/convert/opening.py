"""The two sessions that a conversion is judged by: TensorFlow's of the original, ours of the result."""

from accelserve.backends import probes
from accelserve.backends.base import ArtifactCache, ModelArtifact, Session, SessionOptions
from accelserve.backends.discovery import BackendPool
from accelserve.devices import DeviceKind, DeviceRequest


def open_on_cpu(cache: ArtifactCache, artifact: ModelArtifact) -> Session:
    """Only with the project's own back ends: a plug-in that is preferred elsewhere would judge itself."""
    pool = BackendPool([probes.tf_session(), probes.cut_model()])
    backend, (device, *_) = pool.choose(artifact, DeviceRequest(DeviceKind.CPU))
    options = SessionOptions()
    prepared = backend.prepare(artifact, device, options, cache, lambda what, done: None)
    return backend.load(prepared, device, options, None)

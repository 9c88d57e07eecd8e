"""SavedModels, TF1's and TF2's, through V1 sessions: the only back end's module that imports TensorFlow, to load."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from accelserve.backends import conversion
from accelserve.backends.base import (
    API_VERSION,
    ArtifactCache,
    Batch,
    BatchResult,
    Capabilities,
    Device,
    DeviceLease,
    DeviceState,
    Health,
    Inventory,
    ModelArtifact,
    Placement,
    Prepared,
    Progress,
    SessionOptions,
)
from accelserve.backends.batch_check import check_names, label
from accelserve.backends.host import cpu_device
from accelserve.backends.onnx_runtime import options as onnx_options
from accelserve.backends.run_gate import RunGate
from accelserve.backends.tf_session.errors import kind_of, one_line
from accelserve.backends.tf_session.signatures import read_signatures
from accelserve.cpus import usable_cpus
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor

logger = logging.getLogger("accelserve.backends")

_NO_GPU = "TensorFlow runs on the CPU only; the back end saved_model_onnx takes SavedModels to a GPU"
_SERVE_TAGS = ["serve"]
_CALLERS_THREAD = -1
_SESSIONS_POOL = 0
_MOST_CALLABLES = 64  # per session; clients choose the outputs, so the combinations are not ours to bound


class TfSessionBackend:
    """Format "saved_model" on "cpu:0".

    `SessionOptions.threads`: TensorFlow has one pool per process for the threads inside an operator, and the first
    session that is made sizes it.
    """

    name = "tf_session"
    api_version = API_VERSION

    def inventory(self) -> Inventory:
        return Inventory((cpu_device(),), {DeviceKind.GPU: (_NO_GPU,)})

    def capabilities(self, device: Device, options: SessionOptions) -> Capabilities:
        return Capabilities(formats=frozenset({"saved_model"}))

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """Nothing slow: a SavedModel is there, or ScoringError(PRECONDITION)."""
        if not any((artifact.path / name).is_file() for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise ScoringError(Kind.PRECONDITION, f"{label(artifact)}: there is no saved_model.pb in {artifact.path}")
        progress("ready to load", 1.0)
        return Prepared(artifact, artifact.path)

    def load(
        self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None
    ) -> "TfModelSession":
        model = label(prepared.artifact)
        if device.kind is not DeviceKind.CPU:
            raise ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {_NO_GPU}")
        _check_settings(model, device, options.extra)
        tf = import_tensorflow()
        session = tf.compat.v1.Session(graph=tf.Graph(), config=session_config(tf, options))
        try:
            meta_graph = load_saved_model(tf, model, session, prepared.payload)
            signatures = read_signatures(model, meta_graph.signature_def, tf.make_ndarray)
            placement = Placement({"CPU": len(meta_graph.graph_def.node)})
            return TfModelSession(model, session, signatures, device, placement)
        except BaseException:
            session.close()
            raise

    def health(self, device: Device) -> Health:
        if device.id == cpu_device().id:
            return Health(DeviceState.READY)
        return Health(DeviceState.ABSENT, f"{device.id} is not found")


def _check_settings(model: str, device: Device, extra: Mapping[str, Any]) -> None:
    """None is TensorFlow's. Those of the model's life on a GPU are no fault: `device = "auto"` may lead here.

    Raises ScoringError(INVALID) for any other.
    """
    for_a_gpu = conversion.SETTINGS | onnx_options.SETTINGS
    if unknown := [key for key in extra if key not in for_a_gpu]:
        message = f"{model}: tf_session has no settings, got {', '.join(unknown)}"
        raise ScoringError(Kind.INVALID, f"{message}; on a GPU there are {', '.join(sorted(for_a_gpu))}")
    if extra:
        logger.info("%s runs in TensorFlow on %s, where %s does nothing", model, device.id, ", ".join(extra))


class TfModelSession:
    """One SavedModel in a graph and session of its own; runs may overlap.

    Runs through `Session._make_callable_from_options` (19 µs where `Session.run` takes 150, and it does not refuse
    shapes that the graph can work with), through `Session.run` should a TensorFlow not have it.
    """

    def __init__(
        self, model: str, session: Any, signatures: Mapping[str, Signature], device: Device, placement: Placement
    ) -> None:
        self.signatures: Mapping[str, Signature] = MappingProxyType(dict(signatures))
        self.device = device
        self.placement = placement
        self._model = model
        self._session = session
        self._gate = RunGate(model)
        self._callables: dict[tuple[str, tuple[str, ...]], Callable[..., Sequence[Any]]] = {}

    def run(self, batch: Batch) -> BatchResult:
        signature = check_names(self._model, self.signatures, batch)
        feeds = [batch.inputs[name] for name in signature.inputs]
        with self._gate:
            outputs, run = self._callable(signature, batch.outputs)
            try:
                values = run(*feeds)
            except Exception as error:
                kind = kind_of(error, _takes_strings(signature))
                raise ScoringError(kind, f"{self._model}: {one_line(error)}") from error
        found = dict(zip(outputs, values, strict=True))
        return BatchResult({name: as_tensor(found[name]) for name in batch.outputs})

    def close(self) -> None:
        if self._gate.close():
            self._callables.clear()
            self._session.close()

    def _callable(
        self, signature: Signature, wanted: tuple[str, ...]
    ) -> tuple[tuple[str, ...], Callable[..., Sequence[Any]]]:
        """What computes at least the wanted outputs, and the outputs it computes."""
        key = (signature.name, wanted)
        if key not in self._callables and len(self._callables) >= _MOST_CALLABLES:
            key = (signature.name, tuple(signature.outputs))
        if key not in self._callables:
            self._callables[key] = make_callable(self._session, signature, key[1])
        return key[1], self._callables[key]


def make_callable(session: Any, signature: Signature, outputs: Sequence[str]) -> Callable[..., Sequence[Any]]:
    """A function of the signature's inputs, in their order, that returns `outputs` in theirs.

    Without string inputs the graph runs in the caller's thread (6 µs instead of 18 for a tiny model; operators still
    use TensorFlow's threads inside). With them it runs in the session's pool, where a map_fn decodes pictures side by
    side (16 JPEGs in half the time on two cores).
    """
    feeds = [spec.tensor_name for spec in signature.inputs.values()]
    fetches = [signature.outputs[name].tensor_name for name in outputs]
    return make_graph_callable(session, f'signature "{signature.name}"', feeds, fetches, _takes_strings(signature))


def make_graph_callable(
    session: Any, what: str, feeds: Sequence[str], fetches: Sequence[str], own_pool: bool
) -> Callable[..., Sequence[Any]]:
    """A function of the tensors `feeds` that returns the tensors `fetches`; what: its name in the log.

    own_pool: run in the session's pool, not in the caller's thread.
    """
    pool = _SESSIONS_POOL if own_pool else _CALLERS_THREAD
    try:
        made: Callable[..., Sequence[Any]] = session._make_callable_from_options(
            _callable_options(feeds, fetches, pool)
        )
        return made
    except Exception as error:
        logger.warning("%s runs through the slower Session.run: %s", what, one_line(error))
        return lambda *values: session.run(list(fetches), dict(zip(feeds, values, strict=True)))


def _callable_options(feeds: Sequence[str], fetches: Sequence[str], pool: int) -> Any:
    from tensorflow.core.protobuf import config_pb2

    return config_pb2.CallableOptions(
        feed=feeds, fetch=fetches, run_options=config_pb2.RunOptions(inter_op_thread_pool=pool)
    )


def import_tensorflow() -> Any:
    """TensorFlow, without its start-up chatter unless the environment asks for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow

    return tensorflow


def session_config(tf: Any, options: SessionOptions) -> Any:
    threads = options.threads or usable_cpus()
    return tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=threads,
        inter_op_parallelism_threads=threads,
        device_count={"GPU": 0},
    )


def load_saved_model(tf: Any, model: str, session: Any, path: Path) -> Any:
    """Restore a SavedModel into the session, assets and initialisation included; the meta graph.

    Raises ScoringError(PRECONDITION), DEVICE_MEMORY if it does not fit.
    """
    try:
        with session.graph.as_default(), quiet(tf.get_logger()):
            return tf.compat.v1.saved_model.loader.load(session, _SERVE_TAGS, str(path))
    except Exception as error:
        kind = kind_of(error, takes_strings=False)
        kind = kind if kind is Kind.DEVICE_MEMORY else Kind.PRECONDITION
        raise ScoringError(kind, f"{model} does not load: {one_line(error)}") from error


@contextmanager
def quiet(log: logging.Logger) -> Iterator[None]:
    """The V1 interface warns at each call that it is deprecated; it is chosen on purpose."""
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def _takes_strings(signature: Signature) -> bool:
    return any(spec.dtype.is_string for spec in signature.inputs.values())


def as_tensor(value: Any) -> Tensor:
    """TensorFlow returns a scalar as a numpy scalar, a string scalar as bytes."""
    return np.asarray(value, object if isinstance(value, bytes) else None)

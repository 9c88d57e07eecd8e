"""A part of a cut SavedModel that TensorFlow runs on the CPU: a frozen GraphDef in a session of its own."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelserve.backends.base import SessionOptions
from accelserve.backends.saved_model_onnx.cut_model import Part
from accelserve.backends.tf_session.backend import as_tensor, import_tensorflow, make_graph_callable, session_config
from accelserve.backends.tf_session.errors import kind_of, one_line
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor

_MOST_CALLABLES = 64  # per part; clients choose the outputs


class TfGraph:
    """Takes and gives values (see `cut_model`). Runs may overlap; its owner closes it when none is under way."""

    def __init__(self, model: str, session: Any, part: Part) -> None:
        self._model = model
        self._session = session
        self._feeds = tuple(part.feeds.items())
        self._ports = {value: port for port, value in part.fetches.items()}
        self._callables: dict[tuple[str, ...], Callable[..., Sequence[Any]]] = {}

    def run(self, values: Mapping[str, Tensor], wanted: Sequence[str], takes_strings: bool) -> dict[str, Tensor]:
        """The wanted values. Raises ScoringError as `Session.run` does."""
        names, run = self._callable(tuple(wanted))
        try:
            found = run(*(values[value] for _, value in self._feeds))
        except Exception as error:
            raise ScoringError(kind_of(error, takes_strings), f"{self._model}: {one_line(error)}") from error
        computed = dict(zip(names, found, strict=True))
        return {name: as_tensor(computed[name]) for name in wanted}

    def close(self) -> None:
        self._callables.clear()
        self._session.close()

    def _callable(self, wanted: tuple[str, ...]) -> tuple[tuple[str, ...], Callable[..., Sequence[Any]]]:
        names = wanted
        if names not in self._callables and len(self._callables) >= _MOST_CALLABLES:
            names = tuple(self._ports)
        if names not in self._callables:
            feeds = [port for port, _ in self._feeds]
            fetches = [self._ports[name] for name in names]
            # The session's pool: a map_fn decodes pictures side by side there.
            self._callables[names] = make_graph_callable(self._session, self._model, feeds, fetches, own_pool=True)
        return names, self._callables[names]


def load_graph(model: str, folder: Path, part: Part, options: SessionOptions) -> TfGraph:
    """Load a part and fill its tables. Raises ScoringError(PRECONDITION)."""
    tf = import_tensorflow()
    session = tf.compat.v1.Session(graph=tf.Graph(), config=session_config(tf, options))
    try:
        definition = tf.compat.v1.GraphDef.FromString((folder / part.file).read_bytes())
        with session.graph.as_default():
            tf.graph_util.import_graph_def(definition, name="")
        if part.init:
            session.run([session.graph.get_operation_by_name(name) for name in part.init])
        return TfGraph(model, session, part)
    except Exception as error:
        session.close()
        message = f"{model}: the part {folder / part.file} does not load: {one_line(error)}"
        raise ScoringError(Kind.PRECONDITION, message) from error

"""Files that weights come in: what arrays are in them, by name, and each read when it is asked for."""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from accelserve.errors import Kind, ScoringError

KERAS_SUFFIXES = (".h5", ".hdf5", ".keras")
_CHECKPOINT_PARTS = (".index", ".meta")
_WEIGHTS_IN_KERAS = "model.weights.h5"
_BROKEN = (OSError, ValueError, LookupError, RuntimeError, AttributeError, EOFError, zlib.error, zipfile.BadZipFile)
_KERNEL, _NORM = ("kernel", "bias"), ("gamma", "beta", "moving_mean", "moving_variance")

# What training leaves in a checkpoint and no network wants: counters, optimizers' memories, averages, slim's own means.
_LEFTOVERS = re.compile(
    r"(.*/)?(global_step|learning_rate|beta[12]_power|mean_rgb|is_training)"
    r"|.*/(Momentum|Adam(_\d)?|RMSProp(_\d)?|Adagrad|Ftrl(_\d)?|ExponentialMovingAverage)"
    r"|(.*/)?(save_counter|_CHECKPOINTABLE_OBJECT_GRAPH)(/.*)?"
)


@dataclass(frozen=True, slots=True)
class Arrays:
    """shapes: of all arrays but what training left, by the file's own names; Keras' are LAYER/VARIABLE.

    read: any of them, as it is stored. keras: the names are Keras'.
    """

    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], NDArray[Any]]
    keras: bool = False


@contextmanager
def opened(*paths: Path) -> Iterator[Arrays]:
    """Open weights: .npz, a Keras file (.h5, .weights.h5, .keras), a TensorFlow checkpoint or a SavedModel's variables.

    Several are read as one; if one is Keras', the others have Keras' names too.
    Entering raises ScoringError: NOT_FOUND when there is nothing, PRECONDITION when it cannot be read, a library for it
    is not installed, or two hold the same array. Reading raises PRECONDITION.
    """
    with ExitStack() as stack:
        opened = [stack.enter_context(_reading(path, _source(path))) for path in paths]
        shapes: dict[str, tuple[int, ...]] = {}
        place: dict[str, Arrays] = {}
        for path, arrays in zip(paths, opened, strict=True):
            if twice := sorted(place.keys() & arrays.shapes.keys()):
                message = f"weights {path}: {twice[0]} and {len(twice) - 1} more arrays are in an earlier file already"
                raise ScoringError(Kind.PRECONDITION, message)
            shapes.update(arrays.shapes)
            place.update(dict.fromkeys(arrays.shapes, arrays))
        yield Arrays(shapes, lambda name: place[name].read(name), any(arrays.keras for arrays in opened))


def _source(path: Path) -> AbstractContextManager[Arrays]:
    if path.suffix == ".npz" and path.is_file():
        return _npz(path)
    if path.suffix in KERAS_SUFFIXES and path.is_file():
        return _keras(path)
    return _checkpoint(path, _prefix(path))


@contextmanager
def _reading(path: Path, source: AbstractContextManager[Arrays]) -> Iterator[Arrays]:
    with ExitStack() as stack:
        with _in_words(path):
            arrays = stack.enter_context(source)

        def read(name: str) -> NDArray[Any]:
            with _in_words(path):
                return arrays.read(name)

        shapes = {name: shape for name, shape in arrays.shapes.items() if not _LEFTOVERS.fullmatch(name)}
        yield Arrays(shapes, read, arrays.keras)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """What libraries raise for broken files."""
    try:
        yield
    except _BROKEN as error:
        message = f"weights {path} cannot be read: {str(error).strip() or type(error).__name__}"
        raise ScoringError(Kind.PRECONDITION, message) from error


@contextmanager
def _npz(path: Path) -> Iterator[Arrays]:
    with np.load(path, allow_pickle=False) as file:
        names = {name.removesuffix(":0"): name for name in file.files}
        with zipfile.ZipFile(path) as archive:
            shapes = {name: _npy_shape(archive, inner) for name, inner in names.items()}
        yield Arrays(shapes, lambda name: np.asarray(file[names[name]]))


def _npy_shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
    """From the header: the values stay unread."""
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape: tuple[int, ...] = header(stream)[0]
        return shape


@contextmanager
def _keras(path: Path) -> Iterator[Arrays]:
    _require("h5py", path)

    import h5py

    with _hdf5_stream(path) as stream, h5py.File(stream, "r") as file:
        found = dict(_keras_3(file) if "layers" in file else _keras_legacy(file.get("model_weights", file)))
        if not found:
            raise ValueError(
                "no weights of named layers are in it; save them with Keras as NAME.weights.h5 or NAME.keras"
            )
        shapes = {name: tuple(data.shape) for name, data in found.items()}
        yield Arrays(shapes, lambda name: np.asarray(found[name]), keras=True)


@contextmanager
def _hdf5_stream(path: Path) -> Iterator[IO[bytes]]:
    """A .keras file is a zip archive that holds the HDF5 file."""
    if path.suffix != ".keras":
        with path.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(path) as archive, archive.open(_WEIGHTS_IN_KERAS) as inner:
        yield inner


def _keras_3(file: Any) -> Iterator[tuple[str, Any]]:
    """Keras 3: layers/CLASS_NUMBER/vars/0, 1, ...; an attribute names the layer."""
    for group in file["layers"].values():
        variables = group.get("vars", {})
        if len(variables):
            layer, arrays = variables.attrs.get("name", ""), [variables[key] for key in sorted(variables, key=int)]
            words = _KERNEL if arrays[0].ndim > 1 else _NORM
            yield from ((f"{layer}/{word}", data) for word, data in zip(words, arrays, strict=False) if layer)


def _keras_legacy(root: Any) -> Iterator[tuple[str, Any]]:
    """Keras 2, and .h5 of Keras 3: names of layers and of their weights are attributes; conv1/bn is now conv1_bn."""
    for layer in map(_text, root.attrs.get("layer_names", ())):
        for weight in map(_text, root[layer].attrs.get("weight_names", ())):
            yield f"{layer.replace('/', '_')}/{weight.rpartition('/')[2].partition(':')[0]}", root[layer][weight]


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _prefix(path: Path) -> Path:
    """The name that a checkpoint goes by, whichever of its files or folders was named.

    Raises ScoringError(PRECONDITION) for a folder of several.
    """
    if path.is_dir():
        for inner in (path / "variables" / "variables", path / "variables"):
            if inner.with_name(inner.name + ".index").is_file():
                return inner
        found = sorted(path.glob("*.index"))
        if len(found) > 1:
            message = f"weights {path}: want one checkpoint, got {', '.join(inner.stem for inner in found)}; name one"
            raise ScoringError(Kind.PRECONDITION, message)
        if found:
            return found[0].with_suffix("")
    shard = path.name.partition(".data-")[0]
    return path.with_suffix("") if path.suffix in _CHECKPOINT_PARTS else path.with_name(shard)


@contextmanager
def _checkpoint(path: Path, prefix: Path) -> Iterator[Arrays]:
    if not prefix.is_file() and not prefix.with_name(prefix.name + ".index").is_file():
        forms = ".npz file, Keras file (.h5, .weights.h5, .keras) or TensorFlow checkpoint"
        raise ScoringError(Kind.NOT_FOUND, f"weights {path}: no such {forms}; `seeded` makes random ones")
    _require("tensorflow", path)

    from accelserve.recipes.checkpoint_files import read_checkpoint

    shapes, read = read_checkpoint(prefix)
    yield Arrays(shapes, read)


def _require(library: str, path: Path) -> None:
    from importlib.util import find_spec

    if find_spec(library) is None:
        remedy = "pip install 'accelserve[tensorflow]', or bring the weights as .npz"
        raise ScoringError(Kind.PRECONDITION, f"weights {path} need {library}: {remedy}")

"""What scripts of TensorFlow 1's days need of today's libraries; in the worker only, with `--legacy-tensorflow`.

`tensorflow` is its own compat.v1 with version 2's behaviour off; `ujson` takes arrays; and the maps of protobuf
messages, a model's signatures among them, are walked in the order of their keys: today's protobuf walks them in another
order in each process, so that a script's "second output" would be another one from worker to worker.
"""

import json
import logging
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from accelserve.entry_script.json_answers import JsonEncoder, plain

_V1 = "tensorflow._api.v2.compat.v1"


def install(encoder: JsonEncoder) -> None:
    """encoder: for scripts that ask ujson. Raises ImportError if TensorFlow is not there."""
    _alias_tensorflow()
    _sort_message_maps()
    sys.modules["ujson"] = _ujson(encoder)


def _alias_tensorflow() -> None:
    """`import tensorflow`, and `import tensorflow.x` as far as version 1 has x. All else of it stays what it is."""
    version_1 = import_module("tensorflow.compat.v1")
    told = logging.getLogger("tensorflow")
    level = told.level
    told.setLevel(logging.ERROR)  # that this is not for ever, which nobody who starts a script can change
    version_1.disable_v2_behavior()
    told.setLevel(level)
    for name in list(sys.modules):
        if name.startswith(f"{_V1}.") and not name.startswith(f"{_V1}.compat"):
            sys.modules["tensorflow" + name.removeprefix(_V1)] = sys.modules[name]
    version_1.compat.v1 = version_1
    sys.modules["tensorflow"] = version_1


def _sort_message_maps() -> None:
    """All map fields of all messages, since all have one of two classes; `keys`, `values` and `items` follow."""
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

    graph = MetaGraphDef()
    _sort(type(graph.signature_def))
    _sort(type(graph.meta_info_def.function_aliases))


def _sort(container: Any) -> None:
    unsorted = container.__iter__

    def in_order(self: Any) -> Iterator[Any]:
        return iter(sorted(unsorted(self)))

    container.__iter__ = in_order


def _ujson(encoder: JsonEncoder) -> ModuleType:
    """ujson's functions over the encoder of answers, which knows arrays; with options over the standard library's."""
    module = ModuleType("ujson", "A stand-in of accelserve's that takes arrays, for entry scripts.")
    known = {"indent", "sort_keys", "ensure_ascii", "default", "separators", "allow_nan"}

    def dumps(obj: Any, **options: Any) -> str:
        kept: dict[str, Any] = {name: value for name, value in options.items() if name in known}
        if not kept:
            return encoder.encode(obj).decode()
        return json.dumps(obj, **{"default": plain, "separators": (",", ":"), **kept})

    def dump(obj: Any, fp: Any, **options: Any) -> None:
        fp.write(dumps(obj, **options))

    def loads(s: Any, **_: Any) -> Any:
        return json.loads(s)

    def load(fp: Any, **_: Any) -> Any:
        return json.load(fp)

    module.__dict__.update(dumps=dumps, dump=dump, loads=loads, load=load, encode=dumps, decode=loads)
    module.__dict__["JSONDecodeError"] = json.JSONDecodeError
    return module

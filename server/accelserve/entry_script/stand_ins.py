"""The modules of Azure ML that entry scripts import, made here and put where `import` looks; in the worker only.

`azureml.contrib.services` and the original server's own modules are ours even where the packages are installed, as the
original did it. Where azureml-core is installed it stays, but `Model.get_model_path` is ours.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

from accelserve.entry_script.aml_request import AMLRequest
from accelserve.entry_script.aml_response import AMLResponse
from accelserve.entry_script.model_paths import ModelPathError, ModelPaths

_Function = TypeVar("_Function", bound=Callable[..., Any])
_MODEL_MODULE = "azureml.core.model"
_REQUEST_MODULES = (
    "azureml.contrib.services.aml_request",
    "azureml_inference_server_http.api.aml_request",
)
_RESPONSE_MODULES = (
    "azureml.contrib.services.aml_response",
    "azureml_inference_server_http.api.aml_response",
)


class RawHttp:
    """The decorator. As in the original, to have used it anywhere makes run() one that gets the request."""

    def __init__(self) -> None:
        self.used = False

    def __call__(self, function: _Function) -> _Function:
        self.used = True
        return function


def install(rawhttp: RawHttp, response: type[AMLResponse], paths: ModelPaths) -> None:
    """response: the class that scripts know as AMLResponse."""
    for name in _REQUEST_MODULES:
        _put(name, rawhttp=rawhttp, AMLRequest=AMLRequest)
    for name in _RESPONSE_MODULES:
        _put(name, AMLResponse=response)
    if _is_installed("azureml.core"):
        sys.meta_path.insert(0, _RealModel(paths))
        return
    model, errors = _model_class(paths)
    _put(_MODEL_MODULE, Model=model, **errors)
    sys.modules["azureml.core"].Model = model  # type: ignore[attr-defined]
    _put("azureml.exceptions", **errors)


def _put(name: str, **contents: object) -> None:
    """A module under its name, and its parents as far as they are not installed."""
    module = ModuleType(name, "A stand-in of accelserve's, for entry scripts.")
    module.__dict__.update(contents)
    sys.modules[name] = module
    while "." in name:
        parent_name, _, child = name.rpartition(".")
        parent = _parent(parent_name)
        setattr(parent, child, module)
        name, module = parent_name, parent


def _parent(name: str) -> ModuleType:
    """The real package, else an empty one in which nothing else is found."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        return import_module(name)
    except ImportError:
        package = ModuleType(name, "A stand-in of accelserve's, for entry scripts.")
        package.__path__ = []
        sys.modules[name] = package
        return package


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _model_class(paths: ModelPaths) -> tuple[type, dict[str, type]]:
    """`azureml.core.model.Model` as far as a served script can use it, and the errors by azureml's names."""

    class WebserviceException(Exception):
        @property
        def message(self) -> str:
            return str(self)

    class ModelNotFoundException(WebserviceException):
        pass

    class Model:
        """Finds what the server was given; models are registered with `accelserve register`."""

        @staticmethod
        def get_model_path(model_name: str, version: int | None = None, _workspace: object = None) -> str:
            try:
                return paths.find(model_name, version)
            except ModelPathError as error:
                raise ModelNotFoundException(str(error)) from None

    return Model, {
        "WebserviceException": WebserviceException,
        "ModelNotFoundException": ModelNotFoundException,
    }


class _RealModel(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the installed azureml.core.model, and lets its get_model_path ask us first."""

    def __init__(self, paths: ModelPaths) -> None:
        self._paths = paths
        self._real: importlib.abc.Loader | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _MODEL_MODULE:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            self._real, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec) if self._real is not None else None

    def exec_module(self, module: ModuleType) -> None:
        assert self._real is not None  # create_module came first
        self._real.exec_module(module)
        model: Any = module.__dict__["Model"]
        real_path = model.get_model_path
        paths = self._paths

        def get_model_path(model_name: str, version: int | None = None, _workspace: object = None) -> str:
            try:
                return paths.find(model_name, version)
            except ModelPathError:
                return str(real_path(model_name, version, _workspace))

        model.get_model_path = staticmethod(get_model_path)

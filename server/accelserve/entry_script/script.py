"""A user's script as a module, and the two functions in it that count."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from accelserve.entry_script.inputs import ScriptError
from accelserve.entry_script.rules import missing
from accelserve.entry_script.swagger import Schemas

MODULE = "entry_module"  # by which pickles may know its classes
_VERSION_NAMES = {"2.0": "2", "2": "2", "3.0": "3", "3": "3", "3.1": "3.1"}


@dataclass(frozen=True, slots=True)
class Script:
    init: Callable[[], Any]
    run: Callable[..., Any]

    @property
    def is_async(self) -> bool:
        """Whether run() is, also behind decorators."""
        return any(map(inspect.iscoroutinefunction, (self.run, inspect.unwrap(self.run))))


def load_script(path: Path) -> Script:
    """Runs the script's top level. Raises ScriptError, and whatever the script raises."""
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise ScriptError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE] = module
    spec.loader.exec_module(module)
    for name in ("init", "run"):
        if not callable(getattr(module, name, None)):
            raise ScriptError(f"{path}: {missing(name)}")
    return Script(module.init, _run_of(module))


def _run_of(module: ModuleType) -> Callable[..., Any]:
    """Scripts that an SDK wrote forward to a `driver_module`, which has the run() that counts, as in the original."""
    driver = getattr(module, "driver_module", None)
    run = getattr(driver, "run", None) if isinstance(driver, ModuleType) else None
    counts: Callable[..., Any] = run if callable(run) else module.run
    return counts


def schemas_of(run: Callable[..., Any]) -> Schemas:
    """What inference-schema knows of run(), which has a schema of it."""
    from inference_schema import schema_util

    versions = (_VERSION_NAMES.get(version) for version in schema_util.get_supported_versions(run))
    return Schemas(
        schema_util.get_input_schema(run),
        schema_util.get_output_schema(run),
        frozenset(version for version in versions if version),
    )

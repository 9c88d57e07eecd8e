"""What `[backend]` of a model's file says to the VitisAI provider: checked, and told in the provider's own words.

Source of those words: ONNX Runtime's documentation of the provider and vitisai_provider_factory_creator; older releases
spelt cacheDir and cacheKey.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from accelserve.backends.onnx_runtime.options import CPU
from accelserve.backends.vitis_fpga.pieces import PROVIDER
from accelserve.errors import Kind, ScoringError

_PATHS = ("xclbin", "config_file", "cache_dir", "encryption_key_file")
_TEXTS = ("cache_key", "target", "numerics")
_FALLBACKS = ("forbid", "partial")


@dataclass(frozen=True, slots=True)
class VitisOptions:
    """The keys of `[backend]`; docs/fpga_cards.md has them for the operator.

    xclbin: what programs the card; None: XLNX_VART_FIRMWARE. cache_dir, cache_key: where the provider keeps the
    compiled model; None: a place in the cache of prepared models, by content. encryption_key_file: holds the key, which
    is told to the provider and to nobody else.
    fallback: "partial" lets the provider leave nodes of the device's part to the CPU; "forbid" refuses such a model.
    device_outputs: where the device's part of a plain ONNX file ends; the rest is the host's.
    max_batch: rows of one run, which the model is compiled for. numerics: what the compiled model computes in, which
    the provider cannot be asked.
    """

    xclbin: Path | None = None
    config_file: Path | None = None
    cache_dir: Path | None = None
    cache_key: str = "model"
    target: str = ""
    encryption_key_file: Path | None = None
    fallback: str = "forbid"
    max_batch: int = 1
    numerics: str = "int8"
    device_outputs: tuple[str, ...] = ()


def read_options(model: str, extra: Mapping[str, Any]) -> VitisOptions:
    """Raises ScoringError(INVALID) for an unknown key, and for a value of another type."""
    for key, value in extra.items():
        if problem := _problem(key, value):
            raise ScoringError(Kind.INVALID, f"{model}: {problem}")
    values = dict(extra)
    values |= {key: Path(values[key]).expanduser() for key in _PATHS if key in values}
    if "device_outputs" in values:
        values["device_outputs"] = tuple(values["device_outputs"])
    return VitisOptions(**values)


def encryption_key(options: VitisOptions) -> str:
    """What the key's file holds, "" where none is set. Raises OSError."""
    return options.encryption_key_file.read_text().strip() if options.encryption_key_file is not None else ""


def _problem(key: str, value: Any) -> str:
    if key in _PATHS or key in _TEXTS:
        fits, wanted = type(value) is str and value != "", "a text"
    elif key == "fallback":
        fits, wanted = value in _FALLBACKS, " or ".join(f'"{each}"' for each in _FALLBACKS)
    elif key == "device_outputs":
        fits = isinstance(value, list | tuple) and all(type(each) is str for each in value) and bool(value)
        wanted = "a list of names"
    elif key == "max_batch":
        fits, wanted = type(value) is int and value > 0, "a whole number above 0"
    else:
        return f'vitis_fpga has no setting "{key}"; it has {", ".join(f.name for f in fields(VitisOptions))}'
    return "" if fits else f'setting "{key}" wants {wanted}, got {value!r}'


def provider_list(options: VitisOptions, cache_dir: Path, key: str) -> list[tuple[str, dict[str, str]]]:
    """The provider with its settings; the CPU's beside it only where it may take over. key: "" without encryption.

    An xclbin, or a folder of them, that only the environment names is read by the library underneath.
    """
    settings = {"cache_dir": str(cache_dir), "cache_key": options.cache_key}
    if options.xclbin is not None:
        settings["xclbin"] = str(options.xclbin)
    if options.config_file is not None:
        settings["config_file"] = str(options.config_file)
    if options.target:
        settings["target"] = options.target
    if key:
        settings["encryptionKey"] = key
    vitis = (PROVIDER, settings)
    return [vitis] if options.fallback == "forbid" else [vitis, (CPU, {})]

"""What keeps ONNX Runtime's VitisAI provider from an FPGA: card, XRT, build, xclbin; each missing piece by name."""

import ctypes
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelserve.backends.base import Device
from accelserve.backends.cuda.probe import LoadLibrary
from accelserve.backends.vitis_fpga.cards import Card, CardFinder
from accelserve.devices import DeviceKind

PROVIDER = "VitisAIExecutionProvider"
FIRMWARE = "XLNX_VART_FIRMWARE"
XRT_LIBRARIES = ("libxrt_coreutil.so.2", "libxrt_core.so.2")
_XRT_HOME = "XILINX_XRT"
_BUILD = "AMD's Vitis AI release for the card brings an ONNX Runtime that has it"


def installed_runtime() -> Any | None:
    """The library of this environment, None where there is none."""
    try:
        import onnxruntime
    except ImportError:
        return None
    return onnxruntime


@dataclass(frozen=True, slots=True)
class VitisHost:
    """What a host has. runtime: how the ONNX Runtime library is got; loader: as ctypes.CDLL; environ: its variables."""

    cards: CardFinder = field(default_factory=CardFinder)
    runtime: Callable[[], Any | None] = installed_runtime
    loader: LoadLibrary = ctypes.CDLL
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def devices(self) -> tuple[tuple[Device, ...], tuple[str, ...]]:
        """The cards that can be used, or all that is missing."""
        found = self.cards.find(self.environ)
        software = (*self._xrt_gaps(), *self._build_gaps())
        if found.cards and not software:
            return tuple(_device(card) for card in found.cards), found.missing
        return (), (*found.missing, *software, *self.xclbin_gaps(None))

    def xclbin_gaps(self, xclbin: Path | None) -> tuple[str, ...]:
        """What is wrong with the file that programs the card. xclbin: the model's setting, before the environment's."""
        named = xclbin or (Path(self.environ[FIRMWARE]) if self.environ.get(FIRMWARE) else None)
        if named is None:
            return (f"no xclbin is named: set {FIRMWARE}, or xclbin in [backend] of the model's accelserve.toml",)
        return () if named.exists() else (f"xclbin {named} is not there",)

    def _xrt_gaps(self) -> tuple[str, ...]:
        return tuple(gap for name in XRT_LIBRARIES if (gap := self._xrt_gap(name)))

    def _xrt_gap(self, name: str) -> str:
        try:
            self.loader(name)
        except OSError as error:
            home = Path(self.environ.get(_XRT_HOME, "/opt/xilinx/xrt"))
            if (home / "lib" / name).exists():
                return f"XRT library {name} is in {home}/lib and not found by the loader: source {home}/setup.sh"
            if f"{name}: cannot open shared object file" in str(error):
                return f"XRT library {name} not found (install XRT in the version of the host's drivers)"
            return f"XRT library {name} does not load: {error}"
        return ""

    def _build_gaps(self) -> tuple[str, ...]:
        runtime = self.runtime()
        if runtime is None:
            return (f"python package 'onnxruntime' is not installed: {_BUILD}",)
        if PROVIDER in runtime.get_available_providers():
            return ()
        return (f"onnxruntime {runtime.__version__} is built without {PROVIDER}: {_BUILD}",)


def _device(card: Card) -> Device:
    return Device(f"fpga:{card.address}", DeviceKind.FPGA, card.name, exclusive=True)

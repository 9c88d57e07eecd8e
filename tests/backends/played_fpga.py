"""A host with AMD cards, played: /sys and /dev in a folder, XRT's libraries, and ONNX Runtime with a VitisAI provider.

The provider is played on top of the library's CPU build: it takes the operators that it was told to take, refuses a
session with others where the session may have no node on the CPU, and records what it was configured with.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import onnxruntime

from accelserve.backends.base import Device, ModelArtifact, SessionOptions
from accelserve.backends.vitis_fpga.backend import VitisFpgaBackend
from accelserve.backends.vitis_fpga.cards import CardFinder
from accelserve.backends.vitis_fpga.pieces import PROVIDER, XRT_LIBRARIES, VitisHost
from accelserve.devices import DeviceKind

THE_CARD = Device("fpga:0000:65:00.0", DeviceKind.FPGA, "xilinx_u250", exclusive=True)
TAKEN = frozenset({"Gemm", "MatMul", "Relu", "Softmax", "Mul", "Add", "Conv"})
CPU = "CPUExecutionProvider"
DISABLED = (
    "This session contains graph nodes that are assigned to the default CPU EP, "
    "but fallback to CPU EP has been explicitly disabled by the user."
)


LOST = RuntimeError("[XRT] ERROR: Failed to wait for command: ERT_CMD_STATE_ABORT")


def plug_card(sys: Path, dev: Path, slot: str = "0000:65:00", node: str = "renderD128", driver: str = "xocl") -> None:
    """A card with its two functions. node: "" leaves the user's function out; driver: "" binds none."""
    for function, bound in (("0", driver and "xclmgmt"), ("1", driver)):
        if function == "1" and not node:
            continue
        folder = sys / "bus" / "pci" / "devices" / f"{slot}.{function}"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text("0x10ee\n")
        (folder / "device").write_text("0x5005\n")
        if bound:
            drivers = sys / "bus" / "pci" / "drivers" / bound
            drivers.mkdir(parents=True, exist_ok=True)
            (folder / "driver").symlink_to(drivers)
    if node and driver:
        user = sys / "bus" / "pci" / "devices" / f"{slot}.1"
        (user / "drm" / node).mkdir(parents=True)
        (user / "rom.u.0").mkdir()
        (user / "rom.u.0" / "VBNV").write_text("xilinx_u250\n")
        pass_in(dev, node)


def pass_in(dev: Path, node: str) -> None:
    (dev / "dri").mkdir(parents=True, exist_ok=True)
    (dev / "dri" / node).touch()


def plug_board(sys: Path, dev: Path, node: str = "renderD129") -> None:
    """A Kria or Versal board, whose processor sees its FPGA without PCI."""
    drivers = sys / "bus" / "platform" / "drivers" / "zocl-drm"
    drivers.mkdir(parents=True)
    device = sys / "class" / "drm" / node / "device"
    device.mkdir(parents=True)
    (device / "driver").symlink_to(drivers)
    pass_in(dev, node)


def loader_of(*names: str) -> Callable[[str], object]:
    """Plays ctypes.CDLL on a host that has these libraries."""

    def load(name: str) -> object:
        if name not in names:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return SimpleNamespace()

    return load


class PlayedVitis:
    """ONNX Runtime as AMD builds it. taken: operators that the card has; opened: providers of each session.

    failure: raised by the next run. opening: called while a session opens.
    """

    __version__ = "1.31.1"

    def __init__(self, taken: frozenset[str] = TAKEN) -> None:
        self.taken = taken
        self.opened: list[list[tuple[str, Mapping[str, str]]]] = []
        self.failure: Exception | None = None
        self.load_failure: Exception | None = None
        self.opening: Callable[[], None] = lambda: None
        self.runs: list[dict[str, tuple[int, ...]]] = []
        self.SessionOptions = onnxruntime.SessionOptions

    def get_available_providers(self) -> list[str]:
        return [PROVIDER, CPU]

    def InferenceSession(self, graph, options, providers, enable_fallback):
        names = [name for name, _ in providers]
        if PROVIDER not in names:
            return onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=enable_fallback)
        assert enable_fallback is False
        self.opened.append(providers)
        self.opening()
        if self.load_failure is not None:
            raise self.load_failure
        strict = (
            options.get_session_config_entry("session.disable_cpu_ep_fallback") == "1" if CPU not in names else False
        )
        plain = onnxruntime.SessionOptions()
        plain.log_severity_level = 4
        plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        plain.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return PlayedSession(self, onnxruntime.InferenceSession(graph, plain, providers=[CPU]), strict)


class PlayedSession:
    def __init__(self, runtime: PlayedVitis, session, strict: bool) -> None:
        self._runtime = runtime
        self._session = session
        nodes = [node for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()]
        ours = [node for node in nodes if node.op_type in runtime.taken]
        others = [node for node in nodes if node.op_type not in runtime.taken]
        if others and strict:
            raise RuntimeError(DISABLED)
        self._parts = [part(PROVIDER, ours), part(CPU, others)]

    def disable_fallback(self) -> None: ...

    def get_providers(self) -> list[str]:
        return [PROVIDER, CPU]

    def get_provider_graph_assignment_info(self) -> list:
        return [each for each in self._parts if each.get_nodes()]

    def run(self, outputs, feed):
        self._runtime.runs.append({name: tensor.shape for name, tensor in feed.items()})
        if self._runtime.failure is not None:
            raise self._runtime.failure
        return self._session.run(outputs, feed)


def part(provider: str, nodes: list) -> SimpleNamespace:
    return SimpleNamespace(ep_name=provider, get_nodes=lambda: nodes)


class Machine:
    """A host with one card, and the back end on it. Every piece can be taken away."""

    def __init__(self, root: Path, runtime: object = None, libraries: tuple[str, ...] = XRT_LIBRARIES) -> None:
        self.sys, self.dev = root / "sys", root / "dev"
        self.xclbin = root / "dpu.xclbin"
        root.mkdir(parents=True, exist_ok=True)
        self.xclbin.write_bytes(b"bits")
        self.environ = {"XLNX_VART_FIRMWARE": str(self.xclbin)}
        self.runtime = PlayedVitis() if runtime is None else runtime
        self.host = VitisHost(CardFinder(self.sys, self.dev), lambda: self.runtime, loader_of(*libraries), self.environ)
        self.backend = VitisFpgaBackend(self.host)

    def plug(self, **card: str) -> "Machine":
        plug_card(self.sys, self.dev, **card)
        return self

    def load(self, path: Path, cache: object = None, **extra: object):
        options = SessionOptions(extra={"cache_dir": str(self.xclbin.parent / "compiled"), **extra})
        artifact = ModelArtifact("m", 3, "onnx", path)
        prepared = self.backend.prepare(artifact, THE_CARD, options, cache, lambda what, done: None)
        lease = SimpleNamespace(device_id=THE_CARD.id, release=lambda: None)
        return self.backend.load(prepared, THE_CARD, options, lease)

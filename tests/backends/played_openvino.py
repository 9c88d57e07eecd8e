"""OpenVINO with an FPGA, played on top of the real library: the FPGA's layers run on its CPU device.

What the code under test can do wrong shows here too: a model with an open batch axis is refused, as the FPGA's compiler
refuses it, and HETERO shares layers out as `query_model` says.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from accelserve.backends.base import Device, ModelArtifact, SessionOptions
from accelserve.backends.openvino.backend import OpenVinoBackend
from accelserve.backends.openvino.devices import OpenVinoHost
from accelserve.backends.openvino.library import installed_openvino
from accelserve.devices import DeviceKind

THE_FPGA = Device("fpga:FPGA", DeviceKind.FPGA, "Agilex 7 (played)", exclusive=True)
LOST = RuntimeError("Exception from src/plugin.cpp:7:\nDMA timeout waiting for the FPGA")
TAKEN = frozenset({"MatMul", "Add", "Multiply", "Relu", "Softmax", "Convolution"})


class PlayedCore:
    """taken: layers that the FPGA has. compiled: (target, properties) of each model. failure: raised by the next runs.

    disloyal: what EXECUTION_DEVICES says instead of the truth; None for the truth.
    """

    def __init__(self, plugins: str = "", taken: frozenset[str] = TAKEN) -> None:
        self.plugins = plugins
        self.taken = taken
        self.compiled: list[tuple[str, dict[str, Any]]] = []
        self.failure: Exception | None = None
        self.compiling: Callable[[], None] = lambda: None
        self.compile_failure: Exception | None = None
        self.disloyal: list[str] | None = None
        self._core = installed_openvino().Core()

    @property
    def available_devices(self) -> list[str]:
        return ["CPU", "FPGA"]

    def get_property(self, device: str, name: str) -> Any:
        return THE_FPGA.name if device == "FPGA" else self._core.get_property(device, name)

    def get_versions(self, device: str) -> Any:
        return self._core.get_versions(device)

    def read_model(self, path: Any) -> Any:
        return self._core.read_model(path)

    def query_model(self, graph: Any, target: str) -> dict[str, str]:
        where = {op.get_friendly_name(): "FPGA" for op in graph.get_ordered_ops() if self._takes(op)}
        if target == "FPGA":
            return where
        return {op.get_friendly_name(): "CPU" for op in graph.get_ordered_ops()} | where

    def compile_model(self, graph: Any, target: str, properties: dict[str, Any]) -> Any:
        if target == "CPU":
            return self._core.compile_model(graph, target, properties)
        self.compiled.append((target, properties))
        self.compiling()
        if self.compile_failure is not None:
            raise self.compile_failure
        assert not graph.is_dynamic(), "the FPGA's compiler takes no open axis"
        used = sorted(set(self.query_model(graph, target).values()))
        properties = {"INFERENCE_PRECISION_HINT": "f32"}
        return PlayedModel(self, self._core.compile_model(graph, "CPU", properties), self.disloyal or used)

    def _takes(self, op: Any) -> bool:
        return op.get_type_name() in {*self.taken, "Parameter", "Constant", "Result"}


class PlayedModel:
    def __init__(self, core: PlayedCore, compiled: Any, devices: list[str]) -> None:
        self.inputs, self.outputs = compiled.inputs, compiled.outputs
        self._core, self._compiled, self._devices = core, compiled, devices

    def get_property(self, name: str) -> Any:
        return self._devices if name == "EXECUTION_DEVICES" else self._compiled.get_property(name)

    def create_infer_request(self) -> Any:
        request = self._compiled.create_infer_request()

        def infer(*given: Any, **how: Any) -> None:
            if self._core.failure is not None:
                raise self._core.failure
            request.infer(*given, **how)

        return SimpleNamespace(infer=infer, get_output_tensor=request.get_output_tensor)


class FpgaHost:
    """A host with one played FPGA, and the back end on it."""

    def __init__(self, root: Path) -> None:
        self.core = PlayedCore()
        host = OpenVinoHost(lambda: SimpleNamespace(Core=lambda *plugins: self.core), root / "sys", {})
        self.backend = OpenVinoBackend(host)

    def load(self, path: Path, cache: Any, **extra: Any) -> Any:
        options, artifact = SessionOptions(extra=extra), ModelArtifact("m", 3, "onnx", path)
        prepared = self.backend.prepare(artifact, THE_FPGA, options, cache, lambda what, done: None)
        lease = SimpleNamespace(device_id=THE_FPGA.id, release=lambda: None)
        return self.backend.load(prepared, THE_FPGA, options, lease)

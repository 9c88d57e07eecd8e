"""ONNX models through OpenVINO: on the CPU where that is asked for, and on FPGAs that its plug-ins drive."""

from pathlib import Path
from typing import Any

from accelserve.backends.accel_onnx.card_session import CardSession, Failures, OnCard
from accelserve.backends.accel_onnx.card_states import CardStates
from accelserve.backends.accel_onnx.model_file import read_model, signature_of
from accelserve.backends.artifact_cache import digest_of
from accelserve.backends.base import (
    API_VERSION,
    ArtifactCache,
    Capabilities,
    Device,
    DeviceLease,
    Health,
    Inventory,
    ModelArtifact,
    Placement,
    Prepared,
    Progress,
    SessionOptions,
)
from accelserve.backends.batch_check import label
from accelserve.backends.lease import require_lease
from accelserve.backends.openvino.devices import OpenVinoHost, find_devices, fpga_name, why_no_fpga
from accelserve.backends.openvino.errors import kind_of, one_line
from accelserve.backends.openvino.options import (
    PRECISIONS,
    OpenVinoOptions,
    cpu_properties,
    read_options,
    target,
)
from accelserve.backends.openvino.placement import all_on, check_devices, check_layers, executed, split_layers
from accelserve.backends.openvino.running import runner, types_of
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature

_LOW = ("bf16", "f16")


class OpenVinoBackend:
    """Format "onnx" on "cpu:0" and on what OpenVINO lists as FPGA. Settings: see `OpenVinoOptions`."""

    name = "openvino"
    api_version = API_VERSION

    def __init__(self, host: OpenVinoHost | None = None) -> None:
        """host: who plays the machine, for tests. Raises what the library raises when it does not load."""
        self._host = OpenVinoHost() if host is None else host
        self._core = self._host.core()
        self._states = CardStates()

    def inventory(self) -> Inventory:
        devices = find_devices(self._core)
        if any(device.kind is DeviceKind.FPGA for device in devices):
            return Inventory(devices)
        return Inventory(devices, {DeviceKind.FPGA: why_no_fpga(self._host, self._core)})

    def capabilities(self, device: Device, options: SessionOptions) -> Capabilities:
        chosen = read_options(self.name, options.extra)
        if device.kind is not DeviceKind.FPGA:
            return Capabilities(frozenset({"onnx"}), chosen.numerics_on(device))
        numerics, most = chosen.numerics_on(device), chosen.max_batch
        return Capabilities(frozenset({"onnx"}), numerics, max_batch=most, models_per_device=1)

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """Finds the place where the library keeps the compiled model; it compiles when the model is loaded.

        Raises ScoringError: INVALID for settings, PRECONDITION for a missing file.
        """
        model = label(artifact)
        read_options(model, options.extra)
        if not artifact.path.is_file():
            raise ScoringError(Kind.PRECONDITION, f"{model}: there is no file {artifact.path}")
        made_for = {"openvino": str(self._core.get_versions("CPU")["CPU"].build_number), "device": device.name}
        folder = cache.folder(digest_of(artifact.path, made_for), lambda folder: None)
        progress("ready to load", 1.0)
        return Prepared(artifact, folder)

    def load(
        self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None
    ) -> CardSession:
        model, path = label(prepared.artifact), prepared.artifact.path
        chosen = read_options(model, options.extra)
        require_lease(model, device, lease)
        self._require(model, device)
        signature = signature_of(model, read_model(model, path))
        graph = self._read(model, path)
        if device.kind is DeviceKind.FPGA:
            with self._states.programming(device, f"{model} is being compiled for {device.id}"):
                loaded = self._on_fpga(model, graph, signature, device, chosen)
        else:
            loaded = self._on_cpu(model, graph, signature, device, chosen, options, prepared.payload)
        return CardSession(loaded, Failures(kind_of, one_line, self._states.note_lost))

    def health(self, device: Device) -> Health:
        return self._states.health(device, any(found.id == device.id for found in find_devices(self._core)))

    def _require(self, model: str, device: Device) -> None:
        """Raises ScoringError(DEVICE_MISSING)."""
        inventory = self.inventory()
        there = [each.id for each in inventory.devices]
        if device.id not in there:
            why = "; ".join(inventory.missing.get(device.kind, ())) or f"this host has {', '.join(there)}"
            raise ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {why}")

    def _read(self, model: str, path: Path) -> Any:
        try:
            return self._core.read_model(str(path))
        except Exception as error:
            raise _does_not_load(model, error) from error

    def _compile(self, model: str, graph: Any, name: str, properties: dict[str, Any]) -> Any:
        try:
            return self._core.compile_model(graph, name, properties)
        except Exception as error:
            if kind_of(error) is Kind.DEVICE_MEMORY:
                raise ScoringError(Kind.DEVICE_MEMORY, f"{model} does not fit on {name}: {one_line(error)}") from error
            if kind_of(error) is Kind.DEVICE_LOST:
                raise ScoringError(Kind.DEVICE_MISSING, f"{model} needs {name}: {one_line(error)}") from error
            raise _does_not_load(model, error) from error

    def _on_cpu(
        self,
        model: str,
        graph: Any,
        signature: Signature,
        device: Device,
        chosen: OpenVinoOptions,
        options: SessionOptions,
        cache: Path,
    ) -> OnCard:
        own = types_of(model, graph)
        compiled = self._compile(model, graph, "CPU", cpu_properties(chosen, options, cache))
        check_devices(model, compiled, frozenset({"CPU"}))
        nodes = executed(compiled)
        _check_precision(model, compiled, set(nodes) - own, chosen)
        placement = Placement({"CPU": sum(nodes.values())})
        return OnCard(model, signature, device, placement, runner(model, compiled, signature))

    def _on_fpga(self, model: str, graph: Any, signature: Signature, device: Device, chosen: OpenVinoOptions) -> OnCard:
        name = fpga_name(device)
        _fix_batch(model, graph, signature, chosen.max_batch)
        remarks: tuple[str, ...] = ()
        if chosen.fallback == "forbid":
            check_layers(model, self._core, graph, name)
            placement, allowed = all_on(graph, name), frozenset({name})
        else:
            placement, remarks = split_layers(model, self._core, graph, target(chosen, name))
            allowed = frozenset({name, "CPU"})
        compiled = self._compile(model, graph, target(chosen, name), dict(chosen.properties))
        check_devices(model, compiled, allowed)
        rows = chosen.max_batch if signature.batched else 1
        return OnCard(model, signature, device, placement, runner(model, compiled, signature), rows, remarks)


def _fix_batch(model: str, graph: Any, signature: Signature, rows: int) -> None:
    """The model for exactly that many rows: the FPGA's compiler takes no open axis.

    Raises ScoringError(PRECONDITION) for another open axis.
    """
    shapes = {}
    for name, spec in signature.inputs.items():
        if spec.shape is None or -1 in spec.shape[1:]:
            raise ScoringError(Kind.PRECONDITION, f'{model} "{name}": want a fixed shape for an FPGA, got {spec}')
        shapes[name] = [rows if size == -1 else size for size in spec.shape]
    try:
        graph.reshape(shapes)
    except Exception as error:
        raise _does_not_load(model, error) from error


def _check_precision(model: str, compiled: Any, executed: set[str], options: OpenVinoOptions) -> None:
    """What runs is what is told. executed: the types in which nodes run and that are not the model's own.

    Raises ScoringError(PRECONDITION).
    """
    wanted = PRECISIONS[options.precision]
    took = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    lower = [each for each in _LOW if each in executed and each != wanted]
    if took != wanted or lower:
        there = ", ".join(lower) or took
        message = f'{model}: precision = "{options.precision}" was asked for, and this CPU would compute in {there}'
        raise ScoringError(Kind.PRECONDITION, f"{message}: set precision to what it has")


def _does_not_load(model: str, error: Exception) -> ScoringError:
    return ScoringError(Kind.PRECONDITION, f"{model} does not load: {one_line(error)}")

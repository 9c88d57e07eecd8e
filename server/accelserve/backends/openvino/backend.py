"""ONNX models through OpenVINO: on the CPU where that is asked for, and on FPGAs that its plug-ins drive."""

from pathlib import Path
from typing import Any

from accelserve.backends.accel_onnx.accel_model import FORMAT, Part
from accelserve.backends.accel_onnx.card_session import TAIL_PLACE, CardSession, Failures, OnCard, undivided
from accelserve.backends.accel_onnx.card_states import CardStates
from accelserve.backends.accel_onnx.compiled_folder import kept_whole
from accelserve.backends.accel_onnx.model_file import content_of, read_model, signature_of, with_batch
from accelserve.backends.accel_onnx.parts import AccelParts, read_parts
from accelserve.backends.accel_onnx.running import Run
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
    fpga_properties,
    read_options,
    target,
)
from accelserve.backends.openvino.placement import all_on, check_devices, check_layers, executed, split_layers
from accelserve.backends.openvino.running import join, runner, types_of
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError

Properties = dict[str, Any]  # of the library, by its names
_LOW = ("bf16", "f16")


class OpenVinoBackend:
    """Formats "onnx" and "accelonnx" on "cpu:0" and on what OpenVINO lists as FPGA. Settings: see `OpenVinoOptions`."""

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
            return Capabilities(frozenset({"onnx", FORMAT}), chosen.numerics_on(device))
        numerics, most = chosen.numerics_on(device), chosen.max_batch
        return Capabilities(frozenset({"onnx", FORMAT}), numerics, max_batch=most, models_per_device=1)

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """For an FPGA finds the place where the library keeps the compiled model; it compiles when that is loaded.

        Raises ScoringError: INVALID for settings, PRECONDITION for a missing file.
        """
        model = label(artifact)
        chosen = read_options(model, options.extra)
        if not artifact.path.exists():
            raise ScoringError(Kind.PRECONDITION, f"{model}: there is no file {artifact.path}")
        folder = None if device.kind is not DeviceKind.FPGA else self._compiled(artifact, device, chosen, cache)
        progress("ready to load", 1.0)
        return Prepared(artifact, folder)

    def load(
        self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None
    ) -> CardSession:
        artifact, model = prepared.artifact, label(prepared.artifact)
        chosen = read_options(model, options.extra)
        require_lease(model, device, lease)
        self._require(model, device)
        if device.kind is DeviceKind.FPGA:
            loaded = self._on_fpga(prepared, device, chosen, cpu_properties(chosen, options))
        else:
            loaded = self._on_cpu(artifact, device, chosen, cpu_properties(chosen, options))
        return CardSession(loaded, Failures(kind_of, one_line, self._states.note_lost))

    def health(self, device: Device) -> Health:
        return self._states.health(device, any(found.id == device.id for found in find_devices(self._core)))

    def _compiled(
        self, artifact: ModelArtifact, device: Device, options: OpenVinoOptions, cache: ArtifactCache
    ) -> Path:
        made_for = {
            "openvino": str(self._core.get_versions("CPU")["CPU"].build_number),
            "device": device.name,
            "rows": options.max_batch,
            "fallback": options.fallback,
            "device_outputs": list(options.device_outputs),
            "properties": {key: str(value) for key, value in options.properties.items()},
        }
        return cache.folder(content_of(artifact, made_for), lambda folder: None)

    def _require(self, model: str, device: Device) -> None:
        """Raises ScoringError(DEVICE_MISSING)."""
        inventory = self.inventory()
        there = [each.id for each in inventory.devices]
        if device.id not in there:
            why = "; ".join(inventory.missing.get(device.kind, ())) or f"this host has {', '.join(there)}"
            raise ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {why}")

    def _read(self, model: str, graph: Path | bytes) -> Any:
        try:
            return self._core.read_model(graph if isinstance(graph, bytes) else str(graph))
        except Exception as error:
            raise _does_not_load(model, error) from error

    def _compile(self, model: str, graph: Any, name: str, properties: Properties) -> Any:
        try:
            return self._core.compile_model(graph, name, properties)
        except Exception as error:
            if kind_of(error) is Kind.DEVICE_MEMORY:
                raise ScoringError(Kind.DEVICE_MEMORY, f"{model} does not fit on {name}: {one_line(error)}") from error
            if kind_of(error) is Kind.DEVICE_LOST:
                raise ScoringError(Kind.DEVICE_MISSING, f"{model} needs {name}: {one_line(error)}") from error
            raise _does_not_load(model, error) from error

    def _on_cpu(
        self, artifact: ModelArtifact, device: Device, chosen: OpenVinoOptions, properties: Properties
    ) -> OnCard:
        """A plain file undivided, read by the library with the weights beside it; a converted model in its parts."""
        model = label(artifact)
        if artifact.format == FORMAT:
            parts = read_parts(artifact)
            accel, graph = parts.model, self._read(model, parts.device.SerializeToString())
            tail, tail_nodes = self._tail(model, parts, graph, chosen, properties)
        else:
            accel = undivided(signature_of(model, read_model(model, artifact.path)))
            graph, tail, tail_nodes = self._read(model, artifact.path), None, {}
        run, nodes = self._for_cpu(model, graph, accel.device, chosen, properties)
        return OnCard(model, accel, device, Placement({"CPU": nodes, **tail_nodes}), run, tail)

    def _for_cpu(
        self, model: str, graph: Any, part: Part, chosen: OpenVinoOptions, properties: Properties
    ) -> tuple[Run, int]:
        """How it is run, and how many nodes it has; these compute in what is told."""
        own = types_of(model, graph)
        compiled = self._compile(model, graph, "CPU", properties)
        check_devices(model, compiled, frozenset({"CPU"}))
        nodes = executed(compiled)
        _check_precision(model, compiled, set(nodes) - own, chosen)
        return runner(model, compiled, part), sum(nodes.values())

    def _tail(
        self, model: str, parts: AccelParts, device: Any, chosen: OpenVinoOptions, properties: Properties
    ) -> tuple[Run | None, dict[str, int]]:
        """What the host runs after the device's graph, and its nodes."""
        if parts.tail is None or parts.model.tail is None:
            return None, {}
        graph = self._read(model, parts.tail.SerializeToString())
        try:
            join(device, parts.model.device, graph, parts.model.tail)
        except Exception as error:
            raise _does_not_load(model, error) from error
        run, nodes = self._for_cpu(model, graph, parts.model.tail, chosen, properties)
        return run, {TAIL_PLACE: nodes}

    def _on_fpga(self, prepared: Prepared, device: Device, chosen: OpenVinoOptions, properties: Properties) -> OnCard:
        """properties: of the host's tail."""
        model, name, folder = label(prepared.artifact), fpga_name(device), prepared.payload
        parts = read_parts(prepared.artifact, chosen.device_outputs or None)
        rows = chosen.max_batch if parts.model.signature.batched else 1
        graph = self._read(model, with_batch(model, parts.device, rows).SerializeToString())
        placement, remarks, allowed = self._asked(model, graph, name, chosen)
        with self._states.programming(device, f"{model} is being compiled for {device.id}"), kept_whole(folder):
            compiled = self._compile(model, graph, target(chosen, name), fpga_properties(chosen, folder))
        check_devices(model, compiled, allowed)
        run = runner(model, compiled, parts.model.device)
        tail, tail_nodes = self._tail(model, parts, graph, chosen, properties)
        placement = Placement({**placement.nodes, **tail_nodes})
        return OnCard(model, parts.model, device, placement, run, tail, rows, remarks=remarks)

    def _asked(
        self, model: str, graph: Any, name: str, chosen: OpenVinoOptions
    ) -> tuple[Placement, tuple[str, ...], frozenset[str]]:
        """What the plug-in says of the layers: where each will run, a remark, the devices that may be used."""
        if chosen.fallback == "forbid":
            check_layers(model, self._core, graph, name)
            return all_on(graph, name), (), frozenset({name})
        placement, remarks = split_layers(model, self._core, graph, target(chosen, name))
        return placement, remarks, frozenset({name, "CPU"})


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

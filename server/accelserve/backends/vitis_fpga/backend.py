"""ONNX models on AMD's FPGAs through ONNX Runtime's VitisAI provider, never silently on the CPU."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelserve.backends.accel_onnx.accel_model import FORMAT
from accelserve.backends.accel_onnx.card_session import TAIL_PLACE, CardSession, Failures, OnCard
from accelserve.backends.accel_onnx.card_states import CardStates
from accelserve.backends.accel_onnx.compiled_folder import kept_whole
from accelserve.backends.accel_onnx.model_file import content_of, with_batch
from accelserve.backends.accel_onnx.on_host import FATAL_ONLY, nodes_of, open_on_host, runner
from accelserve.backends.accel_onnx.parts import read_parts
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
from accelserve.backends.onnx_runtime.assignment import placement_of
from accelserve.backends.onnx_runtime.errors import one_line, remedy
from accelserve.backends.vitis_fpga.errors import kind_of
from accelserve.backends.vitis_fpga.options import VitisOptions, encryption_key, provider_list, read_options
from accelserve.backends.vitis_fpga.pieces import FIRMWARE, PROVIDER, VitisHost
from accelserve.backends.vitis_fpga.placement import check_placement, left_to_cpu, refusal
from accelserve.cpus import usable_cpus
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.wire.onnx_pb2 import ModelProto

_FALLBACK_DISABLED = "fallback to CPU EP has been explicitly disabled"


class VitisFpgaBackend:
    """Formats "onnx" and "accelonnx" on AMD's cards and boards. Settings: see `VitisOptions`."""

    name = "vitis_fpga"
    api_version = API_VERSION

    def __init__(self, host: VitisHost | None = None) -> None:
        """host: who plays the machine, for tests."""
        self._host = VitisHost() if host is None else host
        self._states = CardStates()

    def inventory(self) -> Inventory:
        devices, missing = self._host.devices()
        return Inventory(devices, {DeviceKind.FPGA: missing} if missing else {})

    def capabilities(self, device: Device, options: SessionOptions) -> Capabilities:
        chosen = read_options(self.name, options.extra)
        return Capabilities(
            frozenset({"onnx", FORMAT}),
            chosen.numerics,
            max_batch=chosen.max_batch,
            max_inflight=1,
            models_per_device=1,
        )

    def prepare(
        self,
        artifact: ModelArtifact,
        device: Device,
        options: SessionOptions,
        cache: ArtifactCache,
        progress: Progress,
    ) -> Prepared:
        """Finds the place where the provider keeps the compiled model; it compiles when the session opens.

        Raises ScoringError: INVALID for settings, PRECONDITION for a missing file.
        """
        model, chosen = label(artifact), read_options(label(artifact), options.extra)
        if not artifact.path.exists():
            raise ScoringError(Kind.PRECONDITION, f"{model}: there is no file {artifact.path}")
        folder = chosen.cache_dir or self._compiled(artifact, device, chosen, cache)
        progress("ready to load", 1.0)
        return Prepared(artifact, folder)

    def load(
        self, prepared: Prepared, device: Device, options: SessionOptions, lease: DeviceLease | None
    ) -> CardSession:
        model = label(prepared.artifact)
        chosen = read_options(model, options.extra)
        require_lease(model, device, lease)
        xclbin = self._require(model, device, chosen)
        parts = read_parts(prepared.artifact, chosen.device_outputs or None)
        rows = chosen.max_batch if parts.model.signature.batched else 1
        graph = with_batch(model, parts.device, rows).SerializeToString()
        ours = kept_whole(prepared.payload) if chosen.cache_dir is None else nullcontext()
        with self._states.programming(device, f"{xclbin} is being loaded for {model}"), ours:
            session = self._open(model, graph, prepared.payload, device, chosen)
        placement = placement_of(session)
        remarks = check_placement(model, session, placement, chosen)
        tail = None if parts.tail is None else self._open_tail(model, parts.tail, options)
        if tail is not None:
            placement = Placement({**placement.nodes, TAIL_PLACE: nodes_of(tail)})
        on_host = None if tail is None else runner(tail)
        loaded = OnCard(model, parts.model, device, placement, runner(session), on_host, rows, remarks=remarks)
        return CardSession(loaded, Failures(kind_of, one_line, self._states.note_lost))

    def health(self, device: Device) -> Health:
        return self._states.health(device, any(found.id == device.id for found in self.inventory().devices))

    def _compiled(self, artifact: ModelArtifact, device: Device, options: VitisOptions, cache: ArtifactCache) -> Path:
        """Where the provider keeps what it compiled for this model on this kind of card; it fills the folder itself."""
        runtime = self._host.runtime()
        made_for = {
            "onnxruntime": getattr(runtime, "__version__", ""),
            "card": device.name,
            "rows": options.max_batch,
            "target": options.target,
            "device_outputs": list(options.device_outputs),
            "xclbin": _content(options.xclbin or self._host.environ.get(FIRMWARE, "")),
            "config": _content(options.config_file or ""),
        }
        return cache.folder(content_of(artifact, made_for), lambda folder: None)

    def _require(self, model: str, device: Device, options: VitisOptions) -> Path:
        """The xclbin, when nothing lacks. Raises ScoringError(DEVICE_MISSING) naming all that does."""
        devices, missing = self._host.devices()
        if device.id not in {each.id for each in devices}:
            there = f"this host has {', '.join(each.id for each in devices)}"
            raise ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {'; '.join(missing) or there}")
        lacks = [*self._host.xclbin_gaps(options.xclbin), *_file_gaps(options)]
        if lacks:
            raise ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {'; '.join(lacks)}")
        return options.xclbin or Path(self._host.environ[FIRMWARE])

    def _open(self, model: str, graph: bytes, compiled: Path, device: Device, options: VitisOptions) -> Any:
        """The library's session on the provider or not at all. The library has three silent ways to the CPU."""
        runtime = self._host.runtime()
        assert runtime is not None  # `_require` has asked
        made = runtime.SessionOptions()
        made.log_severity_level = FATAL_ONLY
        made.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if options.fallback == "forbid":
            made.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        key = encryption_key(options)
        providers = provider_list(options, compiled, key)
        try:
            session = runtime.InferenceSession(graph, made, providers=providers, enable_fallback=False)
            session.disable_fallback()
        except Exception as error:
            if _FALLBACK_DISABLED in str(error):
                raise refusal(model, self._left_to_cpu(model, graph, compiled, device, options)) from error
            if key and key in str(error):  # neither the message nor the log's traceback may tell it
                raise _load_error(model, device, RuntimeError(str(error).replace(key, "(the key)"))) from None
            raise _load_error(model, device, error) from error
        took = session.get_providers()[0]
        if took != PROVIDER:
            message = f"{model} needs {device.id}: ONNX Runtime could not start {PROVIDER} and took {took}; see its log"
            raise ScoringError(Kind.DEVICE_MISSING, message)
        return session

    def _left_to_cpu(
        self, model: str, graph: bytes, compiled: Path, device: Device, options: VitisOptions
    ) -> list[str]:
        """The layers that the library leaves to the CPU; none where a session that may do so does not open either."""
        try:
            return left_to_cpu(self._open(model, graph, compiled, device, replace(options, fallback="partial")))
        except ScoringError:
            return []

    def _open_tail(self, model: str, graph: ModelProto, options: SessionOptions) -> Any:
        """The library's session of what the host does after the card."""
        content, threads = graph.SerializeToString(), options.threads or usable_cpus()
        return open_on_host(self._host.runtime(), f"{model}, its tail on the host,", content, threads)


def _file_gaps(options: VitisOptions) -> list[str]:
    named = {"config_file": options.config_file, "encryption_key_file": options.encryption_key_file}
    return [f"{key} {path} is not there" for key, path in named.items() if path is not None and not path.is_file()]


def _content(path: Path | str) -> str:
    """A digest of a file that decides what is compiled, "" where there is none."""
    return digest_of(Path(path), {}) if path and Path(path).is_file() else ""


def _load_error(model: str, device: Device, error: Exception) -> ScoringError:
    kind, reason = kind_of(error), one_line(error)
    if kind is Kind.DEVICE_LOST:
        return ScoringError(Kind.DEVICE_MISSING, f"{model} needs {device.id}: {reason}")
    if kind is Kind.DEVICE_MEMORY:
        return ScoringError(kind, f"{model} does not fit on {device.id}: {reason}")
    what_to_do = remedy(error)
    return ScoringError(Kind.PRECONDITION, f"{model} does not load: {reason}{f' ({what_to_do})' if what_to_do else ''}")

"""What `accelserve show` and `accelserve devices` tell: plain dictionaries, and their text for people."""

import ctypes
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelserve.backends.accel_onnx.accel_model import FORMAT, read_accel
from accelserve.backends.base import DecodedInput, Device, Featured, Offer, Remarked
from accelserve.backends.cuda.nvml import open_monitor
from accelserve.backends.cuda.probe import LoadLibrary, find_devices
from accelserve.backends.discovery import BackendPool
from accelserve.config import ModelConfig
from accelserve.errors import ScoringError
from accelserve.installed import installed_versions
from accelserve.models.loading import Loader
from accelserve.models.repository import name_of
from accelserve.models.servable import LoadedModel
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import Signature, TensorSpec

Description = dict[str, Any]

_PACKAGES = (  # those that bring a back end or its libraries
    "onnxruntime",
    "onnxruntime-gpu",
    "nvidia-cublas",
    "nvidia-cuda-runtime",
    "nvidia-cudnn-cu13",
    "nvidia-cufft",
    "nvidia-curand",
    "tensorrt-cu13",
    "onnx",
    "openvino",
    "tensorflow-cpu",
    "tensorflow",
)


def describe_model(loader: Loader, path: Path, device: str | None, name: str = "") -> Description:
    """Load a model as `serve` would, say what it is, and close it again. name: "" makes one from the path.

    Raises ScoringError.
    """
    config = ModelConfig(name or name_of(path), path, device)
    source = loader.find(config)
    model = loader.load(config, source)
    try:
        return _model(model, source.manifest.source)
    finally:
        model.close()


def describe_accel(folder: Path, name: str = "") -> Description:
    """What a model made for an FPGA says of itself, without a device. Raises ScoringError(PRECONDITION)."""
    model = read_accel(folder)
    signature = model.signature
    return {
        "name": name or name_of(folder),
        "format": FORMAT,
        "path": str(folder),
        "signatures": {signature.name: _signature(signature)},
        "preprocessing": {signature.name: asdict(model.pictures)} if model.pictures else {},
        "files": {file: record.size_bytes for file, record in model.files.items()},
        "report": dict(model.report),
    }


def accel_as_text(about: Mapping[str, Any]) -> str:
    return "\n".join(_accel_lines(about))


def _accel_lines(about: Mapping[str, Any]) -> Iterator[str]:
    report = about["report"]
    yield f"{about['name']} ({about['format']}) from {about['path']}"
    if report.get("parent"):
        yield f"parent         {report['parent']}"
    yield from signature_lines(about["signatures"])
    for name, steps in about["preprocessing"].items():
        yield f"pictures       {name} (decoded by the server)"
        for key in ("size", "resize", "channel_order", "layout", "mean", "scale"):
            yield f"  {key:<12} {_plain(steps[key])}"
    for part in ("device", "tail"):
        if told := report.get(part):
            operators = ", ".join(f"{count} {operator}" for operator, count in told["operators"].items())
            yield f"{part:<14} {told['nodes']} nodes ({operators}), {told['weight_bytes']:,} bytes of weights"
    yield "loaded         no: say --device fpga-emulator, or a card's, to load it and to see what it is there"


def missing_backend(loader: Loader, model_format: str) -> str | None:
    """Why nothing here can load a format at all; None when something can, whether or not it then does."""
    offers = [offer for offer in loader.backends.offers if model_format in offer.formats]
    if any(not offer.unavailable for offer in offers):
        return None
    return "; ".join(offer.unavailable for offer in offers) or f"no back end here takes {model_format}"


def _model(model: LoadedModel, manifest: Path | None) -> Description:
    device, report = model.session.device, model.report
    return {
        "name": model.artifact.name,
        "version": model.artifact.version,
        "format": model.artifact.format,
        "path": str(model.artifact.path),
        "manifest": str(manifest) if manifest else None,
        "device": {"id": device.id, "name": device.name, "emulated": device.emulated, "backend": model.backend},
        "instances": [session.device.id for session in model.sessions],
        "nodes": dict(model.session.placement.nodes),
        "numerics": model.capabilities.numerics,
        "remarks": list(model.session.remarks) if isinstance(model.session, Remarked) else [],
        "signatures": {name: _signature(signature) for name, signature in sorted(model.session.signatures.items())},
        "preprocessing": {
            name: {**_preprocessing(value, model.pixels.decoded.get(name)), "normalised": model.pixels.where.get(name)}
            for name, value in model.preprocessing.items()
        },
        "batching": asdict(model.policy),
        "labels": len(model.labels) if model.labels else None,
        "self_check": {"passed": report.check.passed, "detail": report.check.detail},
        "seconds": {"prepare": report.prepare_s, "load": report.load_s, "warmup": report.warmup_s},
    }


def _signature(signature: Signature) -> Description:
    return {
        "method": signature.method_name,
        "batched": signature.batched,
        "inputs": {name: _spec(spec) for name, spec in signature.inputs.items()},
        "outputs": {name: _spec(spec) for name, spec in signature.outputs.items()},
        "defaults": sorted(signature.defaults),
    }


def _spec(spec: TensorSpec) -> Description:
    return {"dtype": spec.dtype.name, "shape": spec.shape and list(spec.shape), "tensor_name": spec.tensor_name}


def _preprocessing(preprocessing: Preprocessing, decoded: DecodedInput | None) -> Description:
    """decoded: where the server stands in for the model's own graph, and how far it is from that."""
    if decoded is not None and decoded.only:
        return {**asdict(preprocessing), "source": "the converted model, decoded by the server", "differs": None}
    if decoded is not None:
        differs = {"pixel": decoded.pixel_error, "output": decoded.output_error}
        return {**asdict(preprocessing), "source": "the model's own graph, decoded by the server", "differs": differs}
    source = "guessed from the signature" if preprocessing.guessed else "accelserve.toml"
    return {**asdict(preprocessing), "source": source, "differs": None}


def model_as_text(description: Mapping[str, Any]) -> str:
    return "\n".join(_model_lines(description))


def _model_lines(about: Mapping[str, Any]) -> Iterator[str]:
    device = about["device"]
    yield f"{about['name']}:{about['version']} ({about['format']}) from {about['path']}"
    emulated = ", emulated" if device["emulated"] else ""
    yield f"device         {device['id']} ({device['name']}) through {device['backend']}, {about['numerics']}{emulated}"
    if len(about["instances"]) > 1:
        yield f"instances      {len(about['instances'])}: {', '.join(about['instances'])}"
    if about["nodes"]:
        yield "nodes          " + ", ".join(f"{count} on {where}" for where, count in about["nodes"].items())
    for remark in about["remarks"]:
        yield f"remark         {remark}"
    yield from signature_lines(about["signatures"])
    for name, steps in about["preprocessing"].items():
        yield f"pictures       {name} ({steps['source']})"
        for key in ("size", "resize", "channel_order", "layout", "resampling", "mean", "scale", "exif", "fast_dct"):
            yield f"  {key:<12} {_plain(steps[key])}"
        if differs := steps["differs"]:
            yield f"  {'differs':<12} pixels by {differs['pixel']:.1f} of 255, outputs by {differs['output']:.2g}"
        if steps["normalised"]:
            yield f"  {'normalised':<12} {steps['normalised']}"
    batching = about["batching"]
    sizes = f" in sizes {_plain(batching['allowed_batch_sizes'])}" if batching["allowed_batch_sizes"] else ""
    delay = f"{batching['max_queue_delay_ns'] // 1000} µs" if batching["max_queue_delay_ns"] else "none"
    objective_ns = batching["latency_slo_ns"]
    how = f"delay {delay}" if objective_ns is None else f"answers within {objective_ns / 1e6:g} ms"
    yield f"batching       up to {batching['max_batch_size']} rows{sizes}, {how}"
    yield f"labels         {about['labels'] or 'none'}"
    check = about["self_check"]
    yield f"self-check     {'passed: ' if check['passed'] else ''}{check['detail']}"
    seconds = about["seconds"]
    yield f"loading        {seconds['load']:.2f} s, warm-up and self-check {seconds['warmup']:.2f} s"


def signature_lines(signatures: Mapping[str, Any]) -> Iterator[str]:
    for name, signature in signatures.items():
        yield f"signature      {name} ({'batched' if signature['batched'] else 'one request at a time'})"
        for direction in ("inputs", "outputs"):
            for key, spec in signature[direction].items():
                yield f"  {direction[:-1]:<12} {key}: {_spec_text(spec)}{_alias(key, spec)}"


def _spec_text(spec: Mapping[str, Any]) -> str:
    shape = "..." if spec["shape"] is None else ",".join(map(str, spec["shape"]))
    return f"{spec['dtype']}[{shape}]"


def _alias(key: str, spec: Mapping[str, Any]) -> str:
    return f" (also {spec['tensor_name']})" if spec["tensor_name"] != key else ""


def _plain(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value).lower()


def describe_devices(pool: BackendPool, loader: LoadLibrary = ctypes.CDLL) -> Description:
    """NVIDIA's driver and GPUs; installed packages; each back end's devices, and what it lacks for all else it could.

    loader: as ctypes.CDLL.
    """
    backends = {offer.name: _backend(pool, offer) for offer in pool.offers}
    return {"nvidia": _nvidia(loader), "packages": installed_versions(_PACKAGES), "backends": backends}


def _nvidia(loader: LoadLibrary) -> Description:
    found, monitor = find_devices(loader), open_monitor(loader)
    return {
        "driver": monitor.driver_version or None,
        "cuda": found.version or None,
        "missing": list(found.missing),
        "gpus": {
            state.device: {
                "uuid": state.uuid,
                "memory_total_bytes": state.memory_total_bytes,
                "memory_free_bytes": state.memory_total_bytes - state.memory_used_bytes,
                "utilization": state.utilization,
            }
            for state in monitor.states()
        },
    }


def _backend(pool: BackendPool, offer: Offer) -> Description:
    inventory = pool.inventory(offer)
    return {
        "formats": sorted(offer.formats),
        "devices": [_device(device) for device in inventory.devices],
        "missing": {kind.value: list(pieces) for kind, pieces in inventory.missing.items()},
        "unavailable": offer.unavailable or None,
        "features": {name: list(pieces) for name, pieces in _features(pool, offer).items()},
    }


def _features(pool: BackendPool, offer: Offer) -> Mapping[str, tuple[str, ...]]:
    try:
        backend = pool.backend(offer)
    except ScoringError:  # the inventory says why
        return {}
    return backend.features() if isinstance(backend, Featured) else {}


def _device(device: Device) -> Description:
    return {
        "id": device.id,
        "name": device.name,
        "memory_bytes": device.memory_bytes,
        "exclusive": device.exclusive,
        "emulated": device.emulated,
    }


def devices_as_text(description: Mapping[str, Any]) -> str:
    lines = list(_nvidia_lines(description["nvidia"]))
    packages = ", ".join(f"{name} {number}" for name, number in description["packages"].items())
    lines.append(f"packages: {packages or 'none of a back end'}")
    for name, backend in description["backends"].items():
        lines.append(f"{name} (runs {', '.join(backend['formats'])})" if backend["formats"] else name)
        if backend["unavailable"] and not backend["missing"]:
            lines.append(f"  unavailable      {backend['unavailable']}")
        for device in backend["devices"]:
            memory = f", {device['memory_bytes'] / 2**30:.1f} GiB" if device["memory_bytes"] else ""
            labels = "".join(f", {label}" for label in ("exclusive", "emulated") if device[label])
            lines.append(f"  {device['id']:<16} {device['name']}{memory}{labels}")
        lines.extend(f"  no {kind:<13} {'; '.join(pieces)}" for kind, pieces in backend["missing"].items())
        for feature, lacks in backend["features"].items():
            lines.append(f"  no {feature:<13} {'; '.join(lacks)}" if lacks else f"  {feature:<16} can be used")
    return "\n".join(lines)


def _nvidia_lines(nvidia: Mapping[str, Any]) -> Iterator[str]:
    if nvidia["missing"]:
        yield f"no NVIDIA GPU: {'; '.join(nvidia['missing'])}"
    else:
        yield f"NVIDIA driver {nvidia['driver'] or '(version not told)'}, CUDA {nvidia['cuda'] or '(not told)'}"
    for device, gpu in nvidia["gpus"].items():
        free, total = gpu["memory_free_bytes"] / 2**30, gpu["memory_total_bytes"] / 2**30
        busy = "" if gpu["utilization"] is None else f", {gpu['utilization']:.0%} busy"
        yield f"  {device:<16} {free:.1f} of {total:.1f} GiB free{busy} ({gpu['uuid']})"

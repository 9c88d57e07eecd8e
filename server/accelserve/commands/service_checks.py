"""What is looked at before a service is started or changed: mistakes, the model, the device."""

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from accelserve.commands.parsing import check_backends
from accelserve.commands.stored import Typed, check_openable, open_store
from accelserve.config_sources import ConfigError
from accelserve.cpus import usable_cpus
from accelserve.devices import DeviceRequest, parse_device_request
from accelserve.errors import Kind, ScoringError
from accelserve.keys import readable_by_others

if TYPE_CHECKING:
    from accelserve.backends.discovery import BackendPool
    from accelserve.deploy.definition import ServiceDefinition


def store_of(parsed: argparse.Namespace) -> str:
    return str(open_store(parsed).root.absolute())


def check_definition(definition: "ServiceDefinition", typed: Typed, script_is_new: bool = True) -> None:
    """Raises ConfigError with all that is wrong; ScoringError(PRECONDITION) when that is the script alone.

    script_is_new: its files are to be copied; the copy that runs is the script's own, whatever it has put there.
    """
    from accelserve.deploy.rules import problems_of
    from accelserve.deploy.services import source_problems
    from accelserve.entry_script.check import script_problems

    typed.problems += problems_of(definition)
    if script_is_new:
        typed.problems += source_problems(definition)
    typed.problems += _tls_problems(definition)
    script = script_problems(Path(definition.entry_script)) if definition.entry_script else ()
    if script and not typed.problems:
        raise ScoringError(Kind.PRECONDITION, "; ".join(script))
    typed.problems += script
    typed.check()


def _tls_problems(definition: "ServiceDefinition") -> Iterator[str]:
    """What a replica would refuse of its certificate and key."""
    files = {field: Path(path) for field in ("tls_cert", "tls_key") if (path := getattr(definition, field))}
    missing = [f"{field}: there is no file {path}" for field, path in files.items() if not path.is_file()]
    if missing or len(files) < 2:
        yield from missing
        return
    from accelserve.frontends.tls import TlsError, TlsFiles, read_identity

    try:
        read_identity(TlsFiles(files["tls_cert"], files["tls_key"]))
    except TlsError as error:
        yield str(error)
    if definition.target == "local" and readable_by_others(files["tls_key"]):
        yield f"tls_key: {files['tls_key']} can be read by every user of this machine; chmod 600 it"


def pinned(definition: "ServiceDefinition") -> "ServiceDefinition":
    """With the model's version: the newest of this moment. Raises ScoringError(NOT_FOUND), and as `check_openable`."""
    from accelserve.models.store import ModelStore

    if not definition.model:
        return definition
    model = ModelStore(Path(definition.store)).find(definition.model, definition.version)
    check_openable(model, bool(definition.entry_script), definition.serve_model)
    return replace(definition, version=model.version)


def check_device(definition: "ServiceDefinition") -> None:
    """Is the device here that is required? Raises ScoringError(DEVICE_MISSING) naming what lacks."""
    from accelserve.loaders import build_loader

    check_backends(definition.backends, "--backends")
    loader = build_loader(backends=definition.backends)
    request = parse_device_request(definition.device)
    if definition.version is None or not definition.serve_model:
        _check_there(loader.backends, request)
        return
    place = Path(definition.store, definition.model, str(definition.version))
    source = loader.find_version(definition.model, definition.version, place)
    own = parse_device_request(source.manifest.device) if source.manifest.device else None
    if own is not None and request.kind is not None and own != request:
        message = f"device: {source.manifest.source} says {own}, and {request} is wanted; change one of them"
        raise ConfigError([message])
    loader.backends.choose(source.artifact, own or request, source.manifest.runtime)


def _check_there(backends: "BackendPool", request: DeviceRequest) -> None:
    """For a script that opens its model itself, any back end that finds the device will do."""
    if request.kind is None:
        return
    wanted = {f"{request.kind.value}:{number}" for number in request.ids}
    reasons = []
    for offer in backends.offers:
        if request.kind not in offer.device_kinds:
            continue
        inventory = backends.inventory(offer)
        there = {device.id for device in inventory.devices if device.kind is request.kind}
        if there and wanted <= there:
            return
        missing = inventory.missing.get(request.kind, ()) or (f"it found {', '.join(sorted(there)) or 'none'}",)
        reasons.append(f"{offer.name}: {', '.join(missing)}")
    why = "; ".join(reasons) or "no back end here drives one"
    raise ScoringError(Kind.DEVICE_MISSING, f"the service needs {request}: {why}")


def remarks_of(definition: "ServiceDefinition") -> Iterator[str]:
    """What this machine, or a cluster, makes of what is asked for."""
    from accelserve.deploy.machine import cluster_remarks, remarks

    if definition.target == "kubernetes":
        return cluster_remarks(definition)
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return remarks(definition, usable_cpus(), memory_bytes)


def tell_remarks(definition: "ServiceDefinition") -> None:
    for remark in remarks_of(definition):
        print(f"accelserve: note: {remark}", file=sys.stderr)

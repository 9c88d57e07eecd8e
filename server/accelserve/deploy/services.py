"""What is done to services: made, changed, waited for, ended. Blocking; used by commands."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from accelserve.config_sources import ConfigError
from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.folder import ServiceFolder
from accelserve.deploy.launch import launch, stop
from accelserve.deploy.ports import open_ports
from accelserve.deploy.registry import Services, services_root
from accelserve.deploy.script_folder import files_to_take
from accelserve.deploy.states import ServiceView, State
from accelserve.deploy.status import addresses_of, status_of
from accelserve.errors import ExitCode, Kind, ScoringError
from accelserve.keys import KeyFileError, read_keys, write_new_keys

_LOOK_S = 0.1
_PORTS_S = 5.0
_SEEN_S = 30.0  # beyond the time that replicas may take to drain

Change = Callable[[ServiceDefinition], ServiceDefinition]


def deploy(services: Services, definition: ServiceDefinition, environ: Mapping[str, str]) -> ServiceFolder:
    """Make a service that runs from now on, under ports that are its own.

    definition: without problems, its model's version known. Raises ScoringError(CONFLICT), and nothing is left: a port
    or the name is taken, the folder cannot be written.
    """
    with closing(open_ports(definition)) as ports:
        numbered = ports.written_into(definition)

        def fill(made: ServiceFolder) -> ServiceDefinition:
            if definition.auth == "key":
                write_new_keys(made.keys)
            return take_script(numbered, made.app(1), services.folder(definition.name).app(1))

        folder = services.create(numbered, fill)
        try:
            launch(folder, ports, environ)
        except BaseException:  # the user's Ctrl-C too: what has begun already is not left alone
            delete(services, folder)
            raise
        return folder


def start(folder: ServiceFolder, environ: Mapping[str, str]) -> None:
    """A service that nobody supervises; another who starts it in the same moment may win.

    Replicas whose supervisor was killed a moment ago may still have its ports. Raises ScoringError(CONFLICT).
    """
    _, definition = folder.read()
    deadline = time.monotonic() + _PORTS_S
    while folder.supervisor() is None:
        try:
            ports = open_ports(definition, remedy="a service keeps its address: end who has it, or delete the service")
        except ScoringError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_LOOK_S)
            continue
        with closing(ports):
            return launch(folder, ports, environ)


def update(folder: ServiceFolder, change: Change, environ: Mapping[str, str]) -> int:
    """Ask for something else. Returns the revision to wait for, that which there was if nothing changes.

    change: makes the new definition of the old; raises what is wrong with it. A service that nobody supervises is
    started with it. Raises ScoringError.
    """
    with folder.changing():
        revision, old = folder.read()
        new = change(old)
        if new.auth == "key" and not folder.keys.exists():
            write_new_keys(folder.keys)
        if new != old:
            revision += 1
            if (new.entry_script, new.source_directory) != (old.entry_script, old.source_directory):
                new = take_script(new, folder.app(revision), folder.app(revision))
            folder.write(revision, new)
    _see_to_it(folder, revision, max(old.drain_s, new.drain_s) + _SEEN_S, environ)
    return revision


def _see_to_it(folder: ServiceFolder, revision: int, within_s: float, environ: Mapping[str, str]) -> None:
    """Wait until a supervisor knows of a revision; one that ends in this moment gets a successor."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if folder.supervisor() is None:
            return start(folder, environ)
        if status_of(folder).view.revision >= revision:
            return None
        time.sleep(_LOOK_S)
    message = f'service "{folder.name}": its supervisor does not heed the change; see its log'
    raise ScoringError(Kind.CONFLICT, message)


def delete(services: Services, folder: ServiceFolder) -> None:
    """Drain it, and forget it. Raises ScoringError."""
    stop(folder)
    services.remove(folder, stop)


@dataclass(frozen=True, slots=True)
class ServiceAddress:
    """Where and how a running service is asked. http: without a path; key: "" when none is asked for."""

    http: str
    scoring_uri: str
    grpc: str
    key: str = field(repr=False)
    tls_cert: str


def service_address(name: str, environ: Mapping[str, str]) -> ServiceAddress:
    """Raises ScoringError: NOT_FOUND, also for a service that has Failed; CONFLICT when its files are damaged."""
    folder = Services(services_root(environ)).find(name)
    _, definition = folder.read()
    view = status_of(folder).view
    if view.state is State.FAILED:
        raise ScoringError(Kind.NOT_FOUND, f'service "{name}" has Failed: {view.reason}')
    try:
        key = read_keys(folder.keys).primary if definition.auth == "key" else ""
    except KeyFileError as error:
        raise ScoringError(Kind.CONFLICT, str(error)) from error
    where = addresses_of(definition)
    return ServiceAddress(
        where.scoring_uri.partition("/api/")[0], where.scoring_uri, where.grpc, key, definition.tls_cert
    )


def take_script(definition: ServiceDefinition, place: Path, later: Path) -> ServiceDefinition:
    """Copy the entry script, with its folder if it has one. Returns the definition that names the copy.

    place: where to; later: where that will be. What is edited afterwards changes nothing that runs. Raises OSError,
    ConfigError.
    """
    if not definition.entry_script:
        return definition
    script = Path(definition.entry_script)
    shutil.rmtree(place, ignore_errors=True)  # of a command that died here
    if not definition.source_directory:
        place.mkdir(mode=0o700)
        shutil.copyfile(script, place / script.name)
        return replace(definition, entry_script=str(later / script.name))
    folder = Path(definition.source_directory)
    files = files_to_take(folder, script)
    place.mkdir(mode=0o700)
    for path in files:
        target = place / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    copied = later / script.relative_to(folder)
    return replace(definition, entry_script=str(copied), source_directory=str(later))


def source_problems(definition: ServiceDefinition) -> list[str]:
    """What is wrong with the script's files."""
    if not definition.source_directory or not definition.entry_script:
        return []
    folder, script = Path(definition.source_directory), Path(definition.entry_script)
    if not folder.is_dir():
        return [f"source_directory: {folder} is no folder"]
    if not script.is_relative_to(folder):
        return [f"entry_script: {script} is not within source_directory {folder}"]
    try:
        files_to_take(folder, script)
    except ConfigError as error:
        return [f"source_directory: {problem}" for problem in error.problems]
    return []


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a wait ended. exit_code: of the command that waited."""

    exit_code: ExitCode
    message: str = ""


def watch(folder: ServiceFolder, revision: int, timeout_s: float, tell: Callable[[ServiceView], None]) -> Outcome:
    """Wait until a revision is Healthy, Failed or refused. tell: each state on the way.

    After `timeout_s` the service goes on without being waited for.
    """
    for view in _states(folder, timeout_s):
        refused = view.refused if view.refused is not None and view.refused.revision == revision else None
        if refused is not None:
            message = f"revision {revision} is refused: {refused.reason}; the service goes on as it was"
            return Outcome(ExitCode(refused.exit_code), message)
        if view.revision < revision and view.state is not State.FAILED:
            continue  # told before the supervisor has seen it
        if view.revision > revision:
            message = f"revision {revision} was overtaken by {view.revision}, which somebody else has asked for"
            return Outcome(ExitCode.CONFLICT, message)
        tell(view)
        if view.state is State.HEALTHY:
            return Outcome(ExitCode.OK)
        if view.state is State.FAILED and not folder.path.exists():
            return Outcome(ExitCode.NOT_FOUND, "somebody has deleted it")
        if view.state is State.FAILED:
            return Outcome(ExitCode(view.exit_code or ExitCode.UNFORESEEN), view.reason)
    return Outcome(
        ExitCode.UNFORESEEN,
        f"not Healthy within {timeout_s:g} s; it goes on: accelserve services status {folder.name}",
    )


def _states(folder: ServiceFolder, timeout_s: float) -> Iterator[ServiceView]:
    deadline = time.monotonic() + timeout_s
    while True:
        yield status_of(folder).view
        if time.monotonic() > deadline:
            return
        time.sleep(_LOOK_S)

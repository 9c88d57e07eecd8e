"""What the commands of services print."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from accelserve.commands.parsing import argument
from accelserve.commands.service_flags import read_number
from accelserve.errors import ExitCode

if TYPE_CHECKING:
    from accelserve.deploy.definition import ServiceDefinition
    from accelserve.deploy.folder import ServiceFolder
    from accelserve.deploy.states import ReplicaView, ServiceView
    from accelserve.deploy.status import Status

_WAIT_S = 600.0
_START_LINES = 12  # of the log, when a revision is refused and the service goes on


def add_wait(parser: argparse.ArgumentParser) -> None:
    """`--wait` and `--timeout`; `told` heeds them."""
    parser.add_argument("--wait", action="store_true", help="until it is Healthy, telling its states on the way")
    parser.add_argument(
        "--timeout",
        type=argument(_patience),
        default=_WAIT_S,
        metavar="SECONDS",
        help=f"how long --wait waits (default: {_WAIT_S:g})",
    )


def _patience(text: str) -> float:
    number = read_number(text)
    if not 0 < number < 10**9:
        raise ValueError("want a number of seconds above 0")
    return number


def told(parsed: argparse.Namespace, folder: "ServiceFolder", revision: int) -> ExitCode:
    """Wait if that is wanted, and say how the service is and where. Returns how the command ends.

    With `--json`, states go to standard error, and one object to standard output.
    """
    from accelserve.deploy.logs import read_together
    from accelserve.deploy.services import Outcome, watch
    from accelserve.deploy.status import status_of

    outcome = Outcome(ExitCode.OK)
    if parsed.wait:
        states = StateLines(folder.name, to_errors=parsed.json)
        outcome = watch(folder, revision, parsed.timeout, states.tell)
    status = status_of(folder)
    if parsed.json:
        print(json.dumps(status.as_json(), indent=2))
    elif not parsed.wait:
        print(state_line(folder.name, status.view))
    if outcome.exit_code is not ExitCode.OK:
        print(f"accelserve: service {folder.name!r}: {outcome.message}", file=sys.stderr)
        if not parsed.json:
            tail = status.tail or read_together(folder.log, _START_LINES, start_only=True)
            print("\n".join(tail), file=sys.stderr)
    elif not parsed.json:
        print("\n".join(address_lines(status)))
    return outcome.exit_code


class StateLines:
    """A line for each state that differs from the last one."""

    def __init__(self, name: str, to_errors: bool) -> None:
        self._name = name
        self._stream = sys.stderr if to_errors else sys.stdout
        self._last = ""

    def tell(self, view: "ServiceView") -> None:
        line = state_line(self._name, view)
        if line != self._last:
            self._last = line
            print(line, file=self._stream, flush=True)


def state_line(name: str, view: "ServiceView") -> str:
    return f"{name}: {view.state.value}: {view.reason}"


def address_lines(status: "Status") -> Iterator[str]:
    if (where := status.addresses) is None or status.definition is None:
        return
    yield f"scoring_uri    {where.scoring_uri}"
    yield f"swagger_uri    {where.swagger_uri}"
    yield f"grpc           {where.grpc}"
    if status.definition.auth == "key":
        yield f"keys           accelserve services keys {status.name}"
    else:
        yield "keys           none are asked for"


def status_lines(status: "Status") -> Iterator[str]:
    since = f" since {status.since[:19].replace('T', ' ')} UTC" if status.since else ""
    yield f"{status.name} is {status.view.state.value}{since}"
    yield f"reason         {status.view.reason}"
    if (refused := status.view.refused) is not None:
        yield f"refused        revision {refused.revision}: {refused.reason}"
    yield f"revision       {status.view.revision}"
    if status.definition is not None:
        yield from definition_lines(status.definition)
        yield from address_lines(status)
    for replica in status.view.replicas:
        yield f"{f'replica {replica.slot}':<14} {_replica(replica)}"
    for line in status.tail:
        yield f"log            {line}"


def definition_lines(definition: "ServiceDefinition") -> Iterator[str]:
    d = definition
    if d.model:
        yield f"model          {d.reference}{'' if d.serve_model else ', opened by the script'}"
    if d.entry_script:
        yield f"entry script   {d.entry_script}, {d.workers} process{'es' if d.workers > 1 else ''} a replica"
    yield f"device         {d.device}"


def _replica(view: "ReplicaView") -> str:
    words = [view.phase.value]
    if view.pid is not None:
        words.append(f"process {view.pid}, revision {view.revision}, {view.in_flight} requests under way")
    if view.memory_bytes is not None:
        words.append(f"{view.memory_bytes / 10**9:.2f} GB")
    if view.restarts:
        words.append(f"started again {view.restarts} times")
    if view.reason:
        words.append(view.reason)
    return ", ".join(words)

"""What is told of a service: its state and reason, and each replica."""

from collections.abc import Iterator

from accelserve.deploy.processes import Process, Table
from accelserve.deploy.states import Phase, ReplicaView, ServiceView, State
from accelserve.errors import ExitCode


def view_of(at: Table) -> ServiceView:
    state, reason = _state(at)
    replicas = tuple(sorted(_replicas(at), key=lambda replica: (replica.slot, replica.revision)))
    code = at.exit_code if state is State.FAILED else ExitCode.OK
    return ServiceView(state, reason, at.wanted.revision, at.count, replicas, at.refused, int(code))


def _state(at: Table) -> tuple[State, str]:
    if at.ends:
        return (State.FAILED, at.ends) if at.failed else (State.TRANSITIONING, f"ends: {at.ends}")
    live, wanted = at.live(), at.wanted
    ready = sum(process.is_ready for process in live)
    broken = [f"replica {number} {slot.last}" for number, slot in sorted(at.slots.items()) if slot.last]
    if any(process.runs != wanted.runs for process in live):
        done = sum(process.is_ready and process.runs == wanted.runs for process in live)
        updating = f"{done} of {at.count} replicas run revision {wanted.revision}"
        return State.TRANSITIONING, "; ".join((updating, *broken))
    unready = [process for process in live if process.ready_ns is not None and not process.is_ready]
    broken += [f"replica {process.slot}: {process.report.reason}" for process in unready]
    told = "; ".join((f"{min(ready, at.count)} of {at.count} replicas ready", *broken))
    if wanted.proven and (broken or not ready):
        return State.UNHEALTHY, told
    if ready >= wanted.definition.least and not broken:
        return State.HEALTHY, told
    return State.TRANSITIONING, told


def _replicas(at: Table) -> Iterator[ReplicaView]:
    for p in at.processes.values():
        slot = at.slots[p.slot]
        reason = "" if p.is_ready else slot.last or p.blamed or p.report.reason
        revision = at.wanted.revision if p.runs == at.wanted.runs else p.revision
        about = (p.slot, _phase(p), revision, p.pid, reason, slot.restarts, p.report.in_flight, p.memory_bytes)
        yield ReplicaView(*about)
    for number, slot in at.slots.items():
        if number < at.count and not at.of(number) and not at.ends:
            yield ReplicaView(number, Phase.WAITING, at.wanted.revision, reason=slot.last, restarts=slot.restarts)


def _phase(process: Process) -> Phase:
    if process.stopping_ns is not None:
        return Phase.STOPPING
    if process.ready_ns is None:
        return Phase.STARTING
    return Phase.READY if process.is_ready else Phase.NOT_READY

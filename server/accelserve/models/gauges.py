"""What /metrics says of models at the moment it is asked: read, not counted."""

from collections.abc import Iterator

from accelserve.backends.base import CountsNonFinite, Device, DeviceState
from accelserve.messages import ModelRef
from accelserve.models.manager import ModelManager, ModelState
from accelserve.models.servable import Servable
from accelserve.observability.metrics import Gauge

Labels = dict[str, str]


def model_gauges(models: ModelManager) -> Iterator[Gauge]:
    """State of every version of every model; devices, instances, placement and queue of those that are AVAILABLE."""
    for name in models.names():
        yield from _states(models, name)
    for servable in models.servables():
        labels = {"model": servable.name, "version": str(servable.version)}
        yield from (_device(servable, device, labels) for device in servable.model.devices)
        yield from _instances(servable, labels)
        yield from _nonfinite(servable, labels)
        for provider, count in servable.model.session.placement.nodes.items():
            where = {**labels, "provider": provider}
            yield Gauge("accelserve_nodes", "Graph nodes of an instance by where they run.", where, count)
        queue = servable.scheduler
        yield Gauge("accelserve_queue_rows", "Rows waiting.", labels, queue.queue_rows)
        yield Gauge("accelserve_queue_bytes", "Bytes of tensors waiting.", labels, queue.queue_bytes)
        yield Gauge("accelserve_batches_running", "Batches that the model is running.", labels, queue.inflight)
        yield from _learned(servable, labels)
    yield from _device_states(models)


def _states(models: ModelManager, name: str) -> Iterator[Gauge]:
    for status in models.statuses(ModelRef(name)):
        for state in ModelState:
            labels = {"model": name, "version": str(status.version), "state": state.value}
            is_there = float(state.value == status.state)
            yield Gauge("accelserve_model_state", "1 for the state that the version is in, else 0.", labels, is_there)


def _instances(servable: Servable, labels: Labels) -> Iterator[Gauge]:
    lost = [instance.lost for instance in servable.scheduler.instances]
    for state, count in (("serving", lost.count(False)), ("lost", lost.count(True))):
        where = {**labels, "state": state}
        yield Gauge("accelserve_instances", "Instances of the model by whether they have their device.", where, count)


def _learned(servable: Servable, labels: Labels) -> Iterator[Gauge]:
    """Nothing for a model whose requests have neither deadlines nor an objective."""
    learned = servable.scheduler.learned
    told = "What a run of so many rows is believed to take."
    for rows, run_ns in learned.sizes:
        if rows & (rows - 1) == 0 or rows == servable.model.policy.max_batch_size:  # a few are enough
            yield Gauge("accelserve_admission_run_seconds", told, {**labels, "rows": str(rows)}, run_ns / 1e9)
    if servable.model.policy.latency_slo_ns is not None:
        rows_told = "Most rows in a batch, as chosen for the model's objective."
        yield Gauge("accelserve_admission_batch_rows", rows_told, labels, learned.most_rows)
        delay_told = "How long a lane waits for company after a run, as chosen for the model's objective."
        yield Gauge("accelserve_admission_delay_seconds", delay_told, labels, learned.delay_ns / 1e9)


def _device_states(models: ModelManager) -> Iterator[Gauge]:
    for device_id, state in models.device_states().items():
        for each in DeviceState:
            where = {"device": device_id, "state": each.value}
            yield Gauge(
                "accelserve_device_state", "1 for the state that the device is in.", where, float(each is state)
            )


def _nonfinite(servable: Servable, labels: Labels) -> Iterator[Gauge]:
    counting = [session for session in servable.model.sessions if isinstance(session, CountsNonFinite)]
    if counting:
        where = {**labels, "device": counting[0].device.id}
        total = sum(session.nonfinite_values for session in counting)
        told = "Infinities and NaNs that the device made since the version was loaded."
        yield Gauge("accelserve_nonfinite_values", told, where, total)


def _device(servable: Servable, device: Device, labels: Labels) -> Gauge:
    where = {
        "backend": servable.model.backend,
        "device": device.id,
        "device_name": device.name,
        "emulated": str(device.emulated).lower(),
    }
    return Gauge("accelserve_device_info", "Where the model runs, a series for each device.", {**labels, **where}, 1.0)

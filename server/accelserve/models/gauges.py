"""What /metrics says of models at the moment it is asked: read, not counted."""

from collections.abc import Iterator

from accelserve.backends.base import Device
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
        for provider, count in servable.model.session.placement.nodes.items():
            where = {**labels, "provider": provider}
            yield Gauge("accelserve_nodes", "Graph nodes of an instance by where they run.", where, count)
        queue = servable.scheduler
        yield Gauge("accelserve_queue_rows", "Rows waiting.", labels, queue.queue_rows)
        yield Gauge("accelserve_queue_bytes", "Bytes of tensors waiting.", labels, queue.queue_bytes)
        yield Gauge("accelserve_batches_running", "Batches that the model is running.", labels, queue.inflight)


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


def _device(servable: Servable, device: Device, labels: Labels) -> Gauge:
    where = {
        "backend": servable.model.backend,
        "device": device.id,
        "device_name": device.name,
        "emulated": str(device.emulated).lower(),
    }
    return Gauge("accelserve_device_info", "Where the model runs, a series for each device.", {**labels, **where}, 1.0)

"""What /metrics says of models at the moment it is asked: read, not counted."""

from collections.abc import Iterator

from accelserve.messages import ModelRef
from accelserve.models.manager import ModelManager, ModelState
from accelserve.models.servable import Servable
from accelserve.observability.metrics import Gauge

Labels = dict[str, str]


def model_gauges(models: ModelManager) -> Iterator[Gauge]:
    """State of every configured model; device, placement and queue of those that are AVAILABLE."""
    for name in models.names():
        yield from _states(models, name)
    for servable in models.servables():
        labels = {"model": servable.name, "version": str(servable.version)}
        yield _device(servable, labels)
        for provider, count in servable.model.session.placement.nodes.items():
            where = {**labels, "provider": provider}
            yield Gauge("accelserve_nodes", "Graph nodes by where they run.", where, count)
        queue = servable.scheduler
        yield Gauge("accelserve_queue_rows", "Rows waiting.", labels, queue.queue_rows)
        yield Gauge("accelserve_queue_bytes", "Bytes of tensors waiting.", labels, queue.queue_bytes)
        yield Gauge("accelserve_batches_running", "Batches that the model is running.", labels, queue.inflight)


def _states(models: ModelManager, name: str) -> Iterator[Gauge]:
    status = models.statuses(ModelRef(name))[0]
    for state in ModelState:
        labels = {"model": name, "version": str(status.version), "state": state.value}
        is_there = float(state.value == status.state)
        yield Gauge("accelserve_model_state", "1 for the state that the model is in, else 0.", labels, is_there)


def _device(servable: Servable, labels: Labels) -> Gauge:
    device = servable.model.session.device
    where = {
        "backend": servable.model.backend,
        "device": device.id,
        "device_name": device.name,
        "emulated": str(device.emulated).lower(),
    }
    return Gauge("accelserve_device_info", "Where the model runs.", {**labels, **where}, 1.0)

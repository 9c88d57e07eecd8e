"""The numbers behind the metrics page, as plain values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from accelserve.observability.histograms import LATENCY_EDGES_NS, ROW_EDGES, Histogram


@dataclass(frozen=True, slots=True)
class Gauge:
    """A value read when the page is asked for. One name has one help text and one set of label names."""

    name: str
    help: str
    labels: Mapping[str, str]
    value: float


class ProtocolCounts:
    """One protocol's door."""

    __slots__ = ("in_flight", "received")

    def __init__(self) -> None:
        self.received = 0
        self.in_flight = 0


@dataclass(slots=True)
class RequestSeries:
    """What requests of one (model, version, protocol) did. ends: (outcome, code, reason) -> requests."""

    ends: dict[tuple[str, str, str], int] = field(default_factory=dict)
    duration: Histogram = field(default_factory=lambda: Histogram(LATENCY_EDGES_NS))
    bytes_in: int = 0
    bytes_out: int = 0


@dataclass(slots=True)
class ModelSeries:
    """What one (model, version) did. queue, decode, modelled: per answered request; compute, rows: per batch.

    batches: device's id -> runs there.
    """

    queue: Histogram = field(default_factory=lambda: Histogram(LATENCY_EDGES_NS))
    decode: Histogram = field(default_factory=lambda: Histogram(LATENCY_EDGES_NS))
    modelled: Histogram = field(default_factory=lambda: Histogram(LATENCY_EDGES_NS))
    compute: Histogram = field(default_factory=lambda: Histogram(LATENCY_EDGES_NS))
    rows: Histogram = field(default_factory=lambda: Histogram(ROW_EDGES))
    padding_rows: int = 0
    batches: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Books:
    """Everything counted. requests: by (model, version, protocol); models: by (model, version)."""

    protocols: dict[str, ProtocolCounts] = field(default_factory=dict)
    requests: dict[tuple[str, str, str], RequestSeries] = field(default_factory=dict)
    models: dict[tuple[str, str], ModelSeries] = field(default_factory=dict)

    def forget(self, is_there: Callable[[str, str], bool]) -> None:
        """Let go of what versions did that are there no more, but for their requests: a hundred lines each, for ever.

        Requests stay counted, so that received is the sum of all ends. is_there: asked with model and version.
        """
        for key in [key for key in self.models if not is_there(*key)]:
            del self.models[key]
        for (model, version, _), series in self.requests.items():
            if model and not is_there(model, version) and any(series.duration.counts):
                series.duration = Histogram(LATENCY_EDGES_NS)

    def protocol(self, protocol: str) -> ProtocolCounts:
        found = self.protocols.get(protocol)
        if found is None:
            found = self.protocols[protocol] = ProtocolCounts()
        return found

    def request(self, model: str, version: str, protocol: str) -> RequestSeries:
        key = (model, version, protocol)
        found = self.requests.get(key)
        if found is None:
            found = self.requests[key] = RequestSeries()
        return found

    def model(self, model: str, version: str) -> ModelSeries:
        key = (model, version)
        found = self.models.get(key)
        if found is None:
            found = self.models[key] = ModelSeries()
        return found

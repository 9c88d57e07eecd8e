"""The metrics page: our counters as prometheus-client metric families."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from accelserve import __version__
from accelserve.observability.histograms import Histogram
from accelserve.observability.series import Books, Gauge

Gauges = Callable[[], Iterable[Gauge]]

_LOG = logging.getLogger("accelserve.metrics")
_NS_PER_SECOND = 10**9
_MODEL = ("model", "version")
_REQUEST = (*_MODEL, "protocol")


class Page:
    """Renders the books, the gauges and the process's own figures."""

    def __init__(self, books: Books, gauges: Gauges) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(BooksCollector(books))
        self._registry.register(GaugesCollector(gauges))
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def render(self, accept: str) -> tuple[bytes, str]:
        try:
            encode, content_type = choose_encoder(accept)
        except (ValueError, TypeError):  # the client asked for a version that is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type


class BooksCollector(Collector):
    def __init__(self, books: Books) -> None:
        self._books = books

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("accelserve_build_info", "The server's version.", labels=["version"])
        build.add_metric([__version__], 1)
        yield build
        yield from self._protocols()
        yield from self._requests()
        yield from self._models()

    def _protocols(self) -> Iterator[Metric]:
        received = _counter("accelserve_requests_received", "Requests that arrived.", ("protocol",))
        in_flight = GaugeMetricFamily(
            "accelserve_requests_in_flight", "Requests that arrived and have not ended.", labels=["protocol"]
        )
        for protocol, counts in self._books.protocols.items():
            received.add_metric([protocol], counts.received)
            in_flight.add_metric([protocol], counts.in_flight)
        yield from (received, in_flight)

    def _requests(self) -> Iterator[Metric]:
        ends = _counter(
            "accelserve_requests",
            "Requests that ended: each in exactly one series.",
            (*_REQUEST, "outcome", "code", "reason"),
        )
        duration = _histogram("accelserve_request_duration_seconds", "From arrival to end, all outcomes.", _REQUEST)
        bytes_in = _counter("accelserve_request_bytes", "Bytes of request bodies.", _REQUEST)
        bytes_out = _counter("accelserve_response_bytes", "Bytes of response bodies.", _REQUEST)
        for labels, series in self._books.requests.items():
            for end, count in series.ends.items():
                ends.add_metric([*labels, *end], count)
            if any(series.duration.counts):
                _add(duration, labels, series.duration, _NS_PER_SECOND)
            bytes_in.add_metric(labels, series.bytes_in)
            bytes_out.add_metric(labels, series.bytes_out)
        yield from (ends, duration, bytes_in, bytes_out)

    def _models(self) -> Iterator[Metric]:
        queue = _histogram("accelserve_queue_seconds", "Wait of an answered request for its batch.", _MODEL)
        decode = _histogram("accelserve_decode_seconds", "Time to make tensors of an answered request.", _MODEL)
        compute = _histogram("accelserve_compute_seconds", "Time the model took for a batch.", _MODEL)
        rows = _histogram("accelserve_batch_rows", "Requested rows that rode in a batch.", _MODEL)
        batches = _counter("accelserve_batches", "Batches that a model ran, by device.", (*_MODEL, "device"))
        padding = _counter("accelserve_padding_rows", "Rows computed only to fill a batch.", _MODEL)
        modelled = _histogram(
            "accelserve_modelled_device_seconds",
            "What an emulated device is modelled to take; never measured, not part of any other metric.",
            _MODEL,
        )
        for labels, series in self._books.models.items():
            for family, histogram in ((queue, series.queue), (decode, series.decode), (compute, series.compute)):
                _add(family, labels, histogram, _NS_PER_SECOND)
            _add(rows, labels, series.rows, 1)
            for device, count in series.batches.items():
                batches.add_metric([*labels, device], count)
            padding.add_metric(labels, series.padding_rows)
            if any(series.modelled.counts):
                _add(modelled, labels, series.modelled, _NS_PER_SECOND)
        yield from (queue, decode, compute, rows, batches, padding, modelled)


class GaugesCollector(Collector):
    """One broken gauge source costs its gauges, not the page."""

    def __init__(self, gauges: Gauges) -> None:
        self._gauges = gauges

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        try:
            for gauge in self._gauges():
                family = families.get(gauge.name)
                if family is None:
                    family = families[gauge.name] = GaugeMetricFamily(gauge.name, gauge.help, labels=[])
                family.add_sample(gauge.name, dict(gauge.labels), gauge.value)
        except Exception:
            _LOG.exception("gauges could not be read")
        return families.values()


def _counter(name: str, documentation: str, labels: Sequence[str]) -> CounterMetricFamily:
    """prometheus-client adds `_total` to the name."""
    return CounterMetricFamily(name, documentation, labels=labels)


def _histogram(name: str, documentation: str, labels: Sequence[str]) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, documentation, labels=labels)


def _add(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram, unit: int) -> None:
    """unit: how many of the histogram's integers make one of the metric's unit."""
    names = [*(str(edge / unit) for edge in histogram.edges), "+Inf"]
    buckets = list(zip(names, histogram.cumulative(), strict=True))
    family.add_metric(labels, buckets, histogram.total / unit)

"""What is counted, and that every request is counted once.

Received = answered + failed + refused + cancelled + in flight, for each protocol, at any moment.

The hot path bumps plain integers (a prometheus-client call costs as much as all of them together); they become
Prometheus' text when the page is asked for (`exposition.py`). Everything here, `render` too, belongs to the event
loop's thread: there are no locks.
"""

from asyncio import CancelledError
from collections.abc import Callable, Iterable
from types import TracebackType

from accelserve.clock import Clock
from accelserve.errors import GRPC_CODE_NAMES, Kind, Outcome, ScoringError
from accelserve.messages import Timing
from accelserve.observability.exposition import Gauges, Page
from accelserve.observability.series import Books, Gauge, ProtocolCounts

__all__ = ["Gauge", "Gauges", "Metrics", "RequestRecord", "code_of"]


def no_gauges() -> Iterable[Gauge]:
    return ()


def every_version(model: str, version: str) -> bool:
    return True


def code_of(kind: Kind, protocol: str) -> str:
    """The `code` label of an error: HTTP's number or gRPC's name."""
    return GRPC_CODE_NAMES[kind.grpc_code] if protocol == "grpc" else str(kind.http_status)


class RequestRecord:
    """One request's line in the books: `with metrics.open("http") as record`. Only the first report counts.

    The front end fills in `model` and `version` once they are resolved to what the server has (never with a client's
    own words: each value is a series for ever), and the sizes and the time to decode as it learns them.
    started_ns: when the request was counted, from where its deadline runs.
    """

    # Of the class: most are set once at most, and a record is made for every request.
    model = ""
    version = ""
    bytes_in = 0
    bytes_out = 0
    decode_ns = 0
    _done = False

    def __init__(self, metrics: "Metrics", protocol: str, counts: ProtocolCounts, started_ns: int) -> None:
        self._metrics = metrics
        self._counts = counts
        self.started_ns = started_ns
        self.protocol = protocol

    def answered(self, timing: Timing | None, code: str = "200") -> None:
        """timing: None when no model ran."""
        if self._done:
            return
        self._finish("answered", code, "")
        if timing is not None:
            series = self._metrics.books.model(self.model, self.version)
            series.queue.observe(timing.queue_ns)
            series.decode.observe(self.decode_ns)
            if timing.modelled_device_ns is not None:
                series.modelled.observe(timing.modelled_device_ns)

    def failed(self, error: ScoringError, code: str) -> None:
        """Counted under the outcome of the error's kind: failed, refused or cancelled."""
        if not self._done:
            self._finish(error.kind.outcome.value, code, error.reason)

    def __enter__(self) -> "RequestRecord":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._done:
            self.ended(error)

    def ended(self, error: BaseException | None) -> None:
        """Counted under the outcome of what left the handler, unless it has been."""
        if self._done:
            return
        if isinstance(error, ScoringError):
            self.failed(error, code_of(error.kind, self.protocol))
        elif isinstance(error, CancelledError):
            self._finish(Outcome.CANCELLED.value, code_of(Kind.CANCELLED, self.protocol), "disconnected")
        else:
            self._finish(Outcome.FAILED.value, code_of(Kind.INTERNAL, self.protocol), Kind.INTERNAL.reason)

    def left(self) -> None:
        """The client has gone."""
        self.ended(CancelledError())

    def _finish(self, outcome: str, code: str, reason: str) -> None:
        self._done = True
        self._counts.in_flight -= 1
        metrics = self._metrics
        series = metrics.books.request(self.model, self.version, self.protocol)
        end = (outcome, code, reason)
        series.ends[end] = series.ends.get(end, 0) + 1
        series.duration.observe(metrics.now_ns() - self.started_ns)
        series.bytes_in += self.bytes_in
        series.bytes_out += self.bytes_out


class TogetherRecord:
    """Several requests that arrived together over one protocol, of one model, and end together or apart.

    The front end fills in what it does for a `RequestRecord`; decode_ns is what all of them took.
    """

    model = ""
    version = ""
    decode_ns = 0

    def __init__(
        self, metrics: "Metrics", protocol: str, counts: ProtocolCounts, started_ns: int, requests: int
    ) -> None:
        self._metrics = metrics
        self._counts = counts
        self.started_ns = started_ns
        self._protocol = protocol
        self._requests = requests

    def answered(self, timing: Timing, requests: int, bytes_in: int, bytes_out: int, code: str = "200") -> None:
        """requests: that somebody still waited for, whose bytes are told; the others are cancelled."""
        books, end = self._metrics.books, ("answered", code, "")
        series = books.request(self.model, self.version, self._protocol)
        series.ends[end] = series.ends.get(end, 0) + requests
        series.bytes_in += bytes_in
        series.bytes_out += bytes_out
        series.duration.observe(self._metrics.now_ns() - self.started_ns, requests)
        ran = books.model(self.model, self.version)
        ran.queue.observe(timing.queue_ns, requests)
        ran.decode.observe(self.decode_ns, requests)
        if timing.modelled_device_ns is not None:
            ran.modelled.observe(timing.modelled_device_ns, requests)
        self._counts.in_flight -= requests
        self._requests -= requests
        for record in self.apart():
            record.left()

    def apart(self) -> "list[RequestRecord]":
        """A record for each request that has not ended, which goes on with it."""
        left, self._requests = self._requests, 0
        return [RequestRecord(self._metrics, self._protocol, self._counts, self.started_ns) for _ in range(left)]

    def ended(self, error: BaseException) -> None:
        """All of them."""
        for record in self.apart():
            record.ended(error)


class Metrics:
    """The server's books. gauges: supplies what is read rather than counted; may be set after construction.

    is_there: asked with model and version, when the page is; of versions that are gone only the requests are told. May
    be set after construction too.
    """

    def __init__(self, clock: Clock, gauges: Gauges = no_gauges) -> None:
        self.gauges = gauges
        self.is_there: Callable[[str, str], bool] = every_version
        self.books = Books()
        self.now_ns = clock.now_ns
        self._page = Page(self.books, lambda: self.gauges())

    def open(self, protocol: str) -> RequestRecord:
        """A request has arrived over "http" or "grpc"."""
        counts = self.books.protocol(protocol)
        counts.received += 1
        counts.in_flight += 1
        return RequestRecord(self, protocol, counts, self.now_ns())

    def refused(self, kind: Kind) -> None:
        """A request has arrived that the HTTP protocol refused before any handler saw it."""
        with self.open("http") as record:
            record.failed(ScoringError(kind, ""), str(kind.http_status))

    def open_together(self, protocol: str, requests: int) -> TogetherRecord:
        """So many requests have arrived."""
        counts = self.books.protocol(protocol)
        counts.received += requests
        counts.in_flight += requests
        return TogetherRecord(self, protocol, counts, self.now_ns(), requests)

    def traffic(self) -> tuple[int, int]:
        """Requests of all protocols: (received, in flight)."""
        protocols = self.books.protocols.values()
        return sum([counts.received for counts in protocols]), sum([counts.in_flight for counts in protocols])

    def batch_done(self, model: str, version: int, device: str, rows: int, padded_rows: int, compute_ns: int) -> None:
        """A model ran `rows` requested rows as `padded_rows` on the device of this id."""
        series = self.books.model(model, str(version))
        series.compute.observe(compute_ns)
        series.rows.observe(rows)
        series.padding_rows += padded_rows - rows
        series.batches[device] = series.batches.get(device, 0) + 1

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """(page, content type): Prometheus' text format 0.0.4, or OpenMetrics when `Accept` asks for it."""
        self.books.forget(self.is_there)
        return self._page.render(accept)

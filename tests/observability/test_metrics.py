"""Every request ends in exactly one counter, and the page says so in Prometheus' words."""

import asyncio
import random

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from accelserve.errors import Kind, Outcome, ScoringError
from accelserve.messages import Timing
from accelserve.observability.histograms import LATENCY_EDGES_NS, Histogram
from accelserve.observability.metrics import Gauge, Metrics, RequestRecord, code_of


class FakeClock:
    def __init__(self) -> None:
        self.ns = 1_000_000_000

    def now_ns(self) -> int:
        return self.ns


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page, _ = metrics.render()
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in parse_text(page.decode())
        for s in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


def ends(metrics: Metrics, protocol: str = "http") -> list[dict[str, str]]:
    return [
        dict(labels)
        for (name, labels), n in samples(metrics).items()
        if name == "accelserve_requests_total" and dict(labels)["protocol"] == protocol
        for _ in range(int(n))
    ]


def sums(metrics: Metrics, protocol: str) -> tuple[float, float]:
    """(received, ended in any way + in flight)"""
    received = value(metrics, "accelserve_requests_received_total", protocol=protocol) or 0
    in_flight = value(metrics, "accelserve_requests_in_flight", protocol=protocol) or 0
    return received, len(ends(metrics, protocol)) + in_flight


def test_an_answered_request_is_counted_under_its_model_with_its_times_and_bytes():
    clock = FakeClock()
    metrics = Metrics(clock)
    with metrics.open("http") as record:
        record.model, record.version = "resnet50", "3"
        record.bytes_in, record.bytes_out, record.decode_ns = 20_000, 500, 300_000
        clock.ns += 70_000
        record.answered(Timing(queue_ns=50_000, compute_ns=1_000_000, batch_rows=4))
    who = {"model": "resnet50", "version": "3"}
    web = {**who, "protocol": "http"}
    assert value(metrics, "accelserve_requests_total", **web, outcome="answered", code="200", reason="") == 1
    assert value(metrics, "accelserve_request_duration_seconds_sum", **web) == pytest.approx(70e-6)
    assert value(metrics, "accelserve_request_duration_seconds_bucket", **web, le="5e-05") == 0
    assert value(metrics, "accelserve_request_duration_seconds_bucket", **web, le="0.0001") == 1
    assert value(metrics, "accelserve_request_bytes_total", **web) == 20_000
    assert value(metrics, "accelserve_response_bytes_total", **web) == 500
    assert value(metrics, "accelserve_queue_seconds_bucket", **who, le="5e-05") == 1
    assert value(metrics, "accelserve_decode_seconds_sum", **who) == pytest.approx(300e-6)


def test_a_request_that_has_not_ended_is_in_flight():
    metrics = Metrics(FakeClock())
    record = metrics.open("grpc")
    assert value(metrics, "accelserve_requests_in_flight", protocol="grpc") == 1
    record.answered(None, "OK")
    assert value(metrics, "accelserve_requests_in_flight", protocol="grpc") == 0
    assert value(metrics, "accelserve_requests_received_total", protocol="grpc") == 1


@pytest.mark.parametrize("kind", list(Kind))
def test_an_error_is_counted_under_its_kinds_outcome_and_reason(kind: Kind):
    metrics = Metrics(FakeClock())
    with metrics.open("http") as record:
        record.failed(ScoringError(kind, "no"), "599")
    (end,) = ends(metrics)
    assert (end["outcome"], end["reason"], end["code"]) == (kind.outcome.value, kind.reason, "599")


def test_only_the_first_report_counts():
    metrics = Metrics(FakeClock())
    with metrics.open("http") as record:
        record.failed(ScoringError(Kind.OVERLOADED, "full", reason="queue_full"), "503")
        record.answered(Timing())
        record.failed(ScoringError(Kind.INTERNAL, "later"), "500")
    (end,) = ends(metrics)
    assert (end["outcome"], end["reason"]) == ("refused", "queue_full")


@pytest.mark.parametrize(
    ("error", "protocol", "outcome", "reason", "code"),
    [
        (ScoringError(Kind.NOT_FOUND, "no"), "http", "failed", "not_found", "404"),
        (ScoringError(Kind.NOT_FOUND, "no"), "grpc", "failed", "not_found", "NOT_FOUND"),
        (asyncio.CancelledError(), "http", "cancelled", "disconnected", "499"),
        (asyncio.CancelledError(), "grpc", "cancelled", "disconnected", "CANCELLED"),
        (KeyError("bug"), "http", "failed", "internal", "500"),
    ],
)
def test_an_exception_that_nobody_reported_is_counted_on_its_way_out(error, protocol, outcome, reason, code):
    metrics = Metrics(FakeClock())
    with pytest.raises(type(error)), metrics.open(protocol):
        raise error
    (end,) = ends(metrics, protocol)
    assert (end["outcome"], end["reason"], end["code"]) == (outcome, reason, code)


def test_a_request_left_without_any_report_is_never_lost():
    metrics = Metrics(FakeClock())
    with metrics.open("http"):
        pass
    (end,) = ends(metrics)
    assert (end["outcome"], end["reason"]) == ("failed", "internal")


def finish_somehow(record: RequestRecord, rng: random.Random) -> None:
    """Report nothing, once or twice, then leave plainly or with an exception."""
    errors = [ScoringError(rng.choice(list(Kind)), "x"), asyncio.CancelledError(), ValueError()]
    reports = [
        lambda: record.answered(Timing()),
        lambda: record.failed(errors[0], "400"),
        lambda: record.answered(None),
    ]
    try:
        with record:
            for report in rng.sample(reports, rng.randrange(3)):
                report()
            if rng.random() < 0.5:
                raise rng.choice(errors)
    except (ScoringError, asyncio.CancelledError, ValueError):
        pass


@pytest.mark.parametrize("seed", range(5))
def test_received_is_always_the_sum_of_all_ends_and_what_is_in_flight(seed: int):
    rng = random.Random(seed)
    metrics = Metrics(FakeClock())
    open_records: list[RequestRecord] = []
    for step in range(120):
        if not open_records or rng.random() < 0.5:
            record = metrics.open(rng.choice(["http", "grpc"]))
            record.model, record.version = rng.choice([("", ""), ("a", "1"), ("b", "2")])
            open_records.append(record)
        else:
            finish_somehow(open_records.pop(rng.randrange(len(open_records))), rng)
        if step % 40 == 0:
            for protocol in ("http", "grpc"):
                received, accounted = sums(metrics, protocol)
                assert received == accounted
    outcomes = {end["outcome"] for protocol in ("http", "grpc") for end in ends(metrics, protocol)}
    assert outcomes == {outcome.value for outcome in Outcome}


def test_a_batch_is_counted_with_its_rows_and_its_padding():
    metrics = Metrics(FakeClock())
    metrics.batch_done("m", 2, "gpu:1", rows=3, padded_rows=8, compute_ns=2_000_000)
    who = {"model": "m", "version": "2"}
    assert value(metrics, "accelserve_compute_seconds_sum", **who) == pytest.approx(0.002)
    assert value(metrics, "accelserve_batch_rows_bucket", **who, le="2.0") == 0
    assert value(metrics, "accelserve_batch_rows_bucket", **who, le="4.0") == 1
    assert value(metrics, "accelserve_padding_rows_total", **who) == 5
    assert value(metrics, "accelserve_batches_total", **who, device="gpu:1") == 1


def test_of_a_version_that_is_gone_only_the_requests_are_told():
    metrics = Metrics(FakeClock())
    there = {("m", "1"), ("m", "2")}
    metrics.is_there = lambda model, version: (model, version) in there
    with metrics.open("http") as record:  # to no model of ours
        record.failed(ScoringError(Kind.NOT_FOUND, ""), "404")

    def ask(version):
        with metrics.open("http") as record:
            record.model, record.version = "m", version
            metrics.batch_done("m", int(version), "cpu:0", 1, 1, 1000)
            record.answered(Timing(0, 1000, 1))

    def told_of(version):
        return {name.removesuffix("_bucket") for name, labels in samples(metrics) if ("version", version) in labels}

    def no_versions_duration():
        return value(metrics, "accelserve_request_duration_seconds_count", model="", version="", protocol="http")

    ask("1")
    ask("2")
    assert told_of("1") == told_of("2") > {"accelserve_batches_total", "accelserve_request_duration_seconds"}
    there.remove(("m", "1"))
    for answered in (1, 2):
        assert told_of("1") == {
            "accelserve_requests_total",
            "accelserve_request_bytes_total",
            "accelserve_response_bytes_total",
        }
        assert sums(metrics, "http") == (2 + answered, 2 + answered)
        ask("1")  # it had been accepted
    assert "accelserve_batches_total" in told_of("2")
    assert no_versions_duration() == 1


def test_modelled_time_has_a_metric_of_its_own_and_only_for_emulated_answers():
    metrics = Metrics(FakeClock())
    who = {"model": "m", "version": "1"}
    for modelled_ns in (None, 1_800_000):
        with metrics.open("http") as record:
            record.model, record.version = "m", "1"
            record.answered(Timing(modelled_device_ns=modelled_ns))
        counted = value(metrics, "accelserve_modelled_device_seconds_count", **who)
        assert counted == (None if modelled_ns is None else 1)
    assert value(metrics, "accelserve_modelled_device_seconds_sum", **who) == pytest.approx(0.0018)


def test_labels_with_quotes_and_newlines_survive_the_page():
    metrics = Metrics(FakeClock())
    odd = 'a"b\\c\nd'
    with metrics.open("http") as record:
        record.model = odd
        record.answered(None)
    assert [end["model"] for end in ends(metrics)] == [odd]


def test_gauges_are_read_when_the_page_is_asked_for_and_grouped_by_name():
    depth = {"a": 1.0, "b": 2.0}
    metrics = Metrics(FakeClock())
    metrics.gauges = lambda: [
        Gauge("accelserve_queue_rows", "Rows waiting.", {"model": m}, v) for m, v in depth.items()
    ]
    depth["b"] = 7.0
    assert value(metrics, "accelserve_queue_rows", model="a") == 1
    assert value(metrics, "accelserve_queue_rows", model="b") == 7
    assert metrics.render()[0].count(b"# TYPE accelserve_queue_rows gauge") == 1


def test_a_broken_gauge_costs_no_other_metric(caplog):
    def broken():
        yield Gauge("accelserve_fine", "Fine.", {}, 1)
        raise RuntimeError("device gone")

    metrics = Metrics(FakeClock(), broken)
    assert value(metrics, "accelserve_fine") == 1
    assert "process_resident_memory_bytes" in {name for name, _ in samples(metrics)}
    assert "device gone" in caplog.text


def test_the_page_carries_the_process_and_the_build():
    names = {name for name, _ in samples(Metrics(FakeClock()))}
    assert {"process_resident_memory_bytes", "python_info", "accelserve_build_info"} <= names


def test_two_servers_in_one_process_do_not_share_books():
    first, second = Metrics(FakeClock()), Metrics(FakeClock())
    first.open("http")
    assert value(second, "accelserve_requests_received_total", protocol="http") is None


def test_the_page_is_text_by_default_and_openmetrics_on_request():
    metrics = Metrics(FakeClock(), lambda: [Gauge("accelserve_model_state", "State.", {"model": "m"}, 1)])
    with metrics.open("http") as record:
        record.answered(Timing(modelled_device_ns=5))
    assert metrics.render()[1].startswith("text/plain; version=0.0.4")
    page, content_type = metrics.render("application/openmetrics-text; version=1.0.0,text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    names = {family.name for family in parse_openmetrics(page.decode())}
    assert {"accelserve_requests", "accelserve_queue_seconds", "accelserve_model_state"} <= names


def test_a_nonsense_accept_header_still_gets_a_page():
    assert Metrics(FakeClock()).render("application/openmetrics-text; version=abc")[1].startswith("text/plain")


def test_a_value_on_an_edge_belongs_below_it_as_le_says():
    histogram = Histogram((10, 20))
    for number in (10, 11, 20, 21):
        histogram.observe(number)
    assert histogram.counts == [1, 2, 1]
    assert list(histogram.cumulative()) == [1, 3, 4]
    assert histogram.total == 62


def test_latency_edges_ascend_from_50_us_to_a_minute():
    assert LATENCY_EDGES_NS[0] == 50_000
    assert LATENCY_EDGES_NS[-1] == 60 * 10**9
    assert list(LATENCY_EDGES_NS) == sorted(set(LATENCY_EDGES_NS))


def test_every_kind_has_a_code_in_both_protocols():
    assert {code_of(kind, "http") for kind in Kind} >= {"400", "404", "499", "503"}
    assert {code_of(kind, "grpc") for kind in Kind} >= {"INVALID_ARGUMENT", "UNAVAILABLE", "UNAUTHENTICATED"}

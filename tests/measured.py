"""Points of the benchmark suite, for the tests of what is made of them."""

from benchmarks.tables import Result

HEAD = {
    "claim": "a claim", "command": "python -m benchmarks.suite", "commit": "abc", "date": "2026-01-02",
    "machine": {"cpus": 2, "cpu": "some CPU", "memory_gib": 8.0, "kernel": "6"}, "versions": {"accelserve": "0"},
    "left_out": {"pytriton": "wants Python 3.11 up to 3.11.2"}, "peers": {"mosec": "mosec==1"}, "deadline_ms": 100,
    "case": "a case",
}  # fmt: skip


def point(server, clients=32, cpu_us=10.0, number=0, **more):
    return {
        "round": number, "server": server, "clients": clients, "cpu_us": cpu_us, "rps": 1e6 / cpu_us, "p50_ms": 1.0,
        "p99_ms": 2.0, "errors": 0, "foreign_cpus": 0.0, **more,
    }  # fmt: skip


def result(*points, failed=()):
    return Result(HEAD, list(points), list(failed))

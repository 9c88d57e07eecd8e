"""The promises to a client, kept by a real server: own answers, unhurt neighbours, one counter for every request."""

import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import pytest
from server_process import Server, serving, wait_until
from talk import Answer, Calls, Connection, Scrape, ask, ask_all, instances, outputs_of, row, strings

from model_builders import jpeg, onnx_image, onnx_mlp, saved_model_jpeg, synthetic_model

DOUBLE = 'behaviour = "double"\n{settings}\n[inputs.x]\ndtype = "float32"\nshape = [-1, {columns}]\noutput = "y"\n'
BROKEN_JPEG = jpeg()[:40] + bytes(400)
GUILTY = 666.0
SLOW = 7.0
SLOW_S = 1.5
SOMETIMES_SLOW = f"delay_ms = {SLOW_S * 1000}\ndelay_if_contains = {SLOW}"
FULL_BATCH = "[batching]\nmax_batch_size = 32\nmax_queue_delay_us = 5000000\n"  # leaves when 32 rows are there
BIG_FEATURES = 2 * 2**20 // 4


def double(folder: Path, name: str, settings: str = "", batching: str = "", columns: int = 2) -> str:
    """A synthetic model that doubles x; the argument that serves it."""
    path = synthetic_model(folder / f"{name}.synthetic.toml", DOUBLE.format(settings=settings, columns=columns))
    if batching:
        (folder / f"{name}.accelserve.toml").write_text(batching)
    return f"--model={name}={path}"


def predict_path(model: str) -> str:
    return f"/v1/models/{model}:predict"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("promises")
    image = onnx_image(folder / "image" / "1" / "model.onnx").parents[1]
    (image / "accelserve.toml").write_text(FULL_BATCH)
    big = onnx_mlp(folder / "big" / "1" / "model.onnx", features=BIG_FEATURES, hidden=1).parents[1]
    (big / "accelserve.toml").write_text("[batching]\nmax_batch_size = 4\n")
    one_by_one = "[batching]\nmax_batch_size = 1\nmax_queue_rows = {rows}\n"
    arguments = (
        double(folder, "quick", "delay_ms = 5.0"),
        double(folder, "guilty", f"fail_if_contains = {GUILTY}", FULL_BATCH),
        double(folder, "item", f"item_error_if_contains = {GUILTY}", FULL_BATCH),
        double(folder, "steps", "delay_per_row_ms = 150.0", "[batching]\nmax_batch_size = 8\n", columns=-1),
        double(folder, "slow", SOMETIMES_SLOW, one_by_one.format(rows=100)),
        double(folder, "narrow", SOMETIMES_SLOW, one_by_one.format(rows=2)),
        double(folder, "halves", "", "[batching]\nmax_batch_size = 3\nallowed_batch_sizes = [2, 3]\n"),
        f"--model=image={image}",
        f"--model=big={big}",
    )
    with serving(*arguments, log=folder / "log") as server:
        yield server


@dataclass(frozen=True)
class Batches:
    """What a model ran: how many batches, and how many rows in them."""

    count: int
    rows: int

    @staticmethod
    def of(server: Server, model: str) -> "Batches":
        page = Scrape(server)
        count = page.sum("accelserve_batch_rows_count", model=model)
        return Batches(int(count), int(page.sum("accelserve_batch_rows_sum", model=model)))

    def __sub__(self, earlier: "Batches") -> "Batches":
        return Batches(self.count - earlier.count, self.rows - earlier.rows)


def queue_rows(server: Server, model: str) -> float:
    return Scrape(server).sum("accelserve_queue_rows", model=model)


def running(server: Server, model: str) -> float:
    return Scrape(server).sum("accelserve_batches_running", model=model)


# --- everybody gets the own answer


def test_200_concurrent_http_requests_each_get_their_own_answer_and_ride_together(server):
    before = Batches.of(server, "quick")
    by_json = [(predict_path("quick"), instances((i, -i))) for i in range(100)]
    by_bytes = [("/score?model=quick", struct.pack("<2f", i, -i)) for i in range(100, 200)]
    answers = ask_all(server, by_json + by_bytes)
    assert [answer.status for answer in answers] == [200] * 200
    got = [answer.json["predictions"] if i < 100 else answer.json for i, answer in enumerate(answers)]
    assert got == [[[2.0 * i, -2.0 * i]] for i in range(200)]
    ran = Batches.of(server, "quick") - before
    assert ran.rows == 200
    assert ran.count <= 50
    assert max(answer.batch_rows for answer in answers) > 1


def test_200_grpc_calls_in_flight_each_get_their_own_answer_and_ride_together(server):
    before = Batches.of(server, "quick")
    with Calls(server) as calls:
        asking = [("x-accelserve-timing", "1")]
        started = [calls.start("quick", {"x": row(i, -i)}, metadata=asking) for i in range(200)]
        got = [outputs_of(call.result())["y"].tolist() for call in started]
        timings = [dict(call.trailing_metadata())["x-accelserve-timing"] for call in started]
    assert got == [[[2.0 * i, -2.0 * i]] for i in range(200)]
    ran = Batches.of(server, "quick") - before
    assert ran.rows == 200
    assert ran.count <= 100
    assert max(int(timing.rpartition("batch=")[2].partition(",")[0]) for timing in timings) > 1


def test_a_request_over_max_batch_size_is_split_and_joined_in_its_order(server):
    before = Batches.of(server, "halves")
    answer = ask(server, predict_path("halves"), instances(*((i, 100 + i) for i in range(10))))
    assert answer.json["predictions"] == [[2.0 * i, 200.0 + 2 * i] for i in range(10)]
    with Calls(server) as calls:
        got = outputs_of(calls.start("halves", {"x": np.arange(14, dtype=np.float32).reshape(7, 2)}).result())
    np.testing.assert_array_equal(got["y"], 2 * np.arange(14, dtype=np.float32).reshape(7, 2))
    assert Batches.of(server, "halves") - before == Batches(4 + 3, 17)


# --- one bad request never hurts a neighbour


def colour(i: int) -> tuple[int, int, int]:
    return (8 * i, 255 - 8 * i, 100)


def assert_the_colours_are_right(answers: list[Answer], skip: int) -> None:
    for i, answer in enumerate(answers):
        if i != skip:
            assert answer.status == 200, answer.body
            np.testing.assert_allclose(answer.json, np.array(colour(i)) / 255, atol=0.02)


def test_one_undecodable_jpeg_among_31_good_ones_fails_alone_with_422(server):
    # Posted as 33: 32 good rows fill the batch, so that it leaves.
    pictures = [jpeg(colour(i)) for i in range(31)]
    pictures.insert(17, BROKEN_JPEG)
    before = Batches.of(server, "image")
    asked = [("/score?model=image", picture) for picture in (*pictures, jpeg())]
    answers = ask_all(server, asked)
    assert answers[17].status == 422
    assert "JPEG" in answers[17].json["error"]
    assert answers[17].headers["x-accelserve-reason"] == "undecodable"
    good = [*answers[:17], *answers[18:32]]
    assert_the_colours_are_right(good, skip=-1)
    assert Batches.of(server, "image") - before == Batches(1, 32)


@pytest.mark.parametrize(("model", "reruns"), [("guilty", 32), ("item", 0)])
def test_a_row_that_fails_its_batch_fails_alone(server, model, reruns):
    before = Batches.of(server, model)
    asked = [(predict_path(model), instances((i, GUILTY if i == 5 else 1))) for i in range(32)]
    answers = ask_all(server, asked)
    assert [answer.status for answer in answers] == [400 if i == 5 else 200 for i in range(32)]
    assert "contains 666" in answers[5].json["error"]
    assert [a.json["predictions"] for i, a in enumerate(answers) if i != 5] == [
        [[2.0 * i, 2.0]] for i in range(32) if i != 5
    ]
    assert Batches.of(server, model) - before == Batches(1 + reruns, 32 + reruns)


@pytest.mark.parametrize(("model", "reruns"), [("guilty", 32), ("item", 0)])
def test_a_grpc_call_that_fails_its_batch_fails_alone(server, model, reruns):
    before = Batches.of(server, model)
    with Calls(server) as calls:
        started = [calls.start(model, {"x": row(i, GUILTY if i == 31 else 1)}) for i in range(32)]
        assert started[31].exception().code() is grpc.StatusCode.INVALID_ARGUMENT
        for i in range(31):
            assert outputs_of(started[i].result())["y"].tolist() == [[2.0 * i, 2.0]]
    assert Batches.of(server, model) - before == Batches(1 + reruns, 32 + reruns)


@pytest.mark.tensorflow
def test_a_jpeg_that_only_the_models_own_graph_can_refuse_fails_alone(tmp_path):
    pytest.importorskip("tensorflow")
    folder = saved_model_jpeg(tmp_path / "jpeg" / "1").parent
    (folder / "accelserve.toml").write_text(FULL_BATCH)
    pictures = [BROKEN_JPEG if i == 9 else jpeg(colour(i)) for i in range(32)]
    with serving(f"--model=jpeg={folder}", log=tmp_path / "log") as server:
        answers = ask_all(server, [("/score", picture) for picture in pictures])
        assert answers[9].status == 422, answers[9].body
        assert_the_colours_are_right(answers, skip=9)
        assert Batches.of(server, "jpeg") == Batches(33, 64)
        with Calls(server) as calls:
            started = [calls.start("jpeg", {"images": strings(picture)}) for picture in pictures]
            assert started[9].exception().code() is grpc.StatusCode.INVALID_ARGUMENT
            for i, call in enumerate(started):
                if i != 9:
                    scores = outputs_of(call.result())["scores"][0]
                    np.testing.assert_allclose(scores, np.array(colour(i)) / 255, atol=0.02)


def test_a_client_that_goes_while_queued_frees_the_queue_and_hurts_nobody(server):
    with Connection(server.http_port) as head, Connection(server.http_port) as stays:
        head.send(predict_path("slow"), instances((1, SLOW)))
        wait_until(lambda: running(server, "slow") == 1)
        leaves = [Connection(server.http_port) for _ in range(3)]
        for connection in leaves:
            connection.send(predict_path("slow"), instances((9, 9)))
        stays.send(predict_path("slow"), instances((2, 2)))
        wait_until(lambda: queue_rows(server, "slow") == 4)
        for connection in leaves:
            connection.close()
        wait_until(lambda: queue_rows(server, "slow") == 1)
        assert running(server, "slow") == 1, "the head's run ended before the queue was looked at"
        assert head.read().json["predictions"] == [[2.0, 2 * SLOW]]
        assert stays.read().json["predictions"] == [[4.0, 4.0]]


def test_a_grpc_call_that_is_cancelled_while_queued_frees_the_queue_and_hurts_nobody(server):
    with Calls(server) as calls:
        head = calls.start("slow", {"x": row(1, SLOW)})
        wait_until(lambda: running(server, "slow") == 1)
        leaves, stays = calls.start("slow", {"x": row(9, 9)}), calls.start("slow", {"x": row(2, 2)})
        wait_until(lambda: queue_rows(server, "slow") == 2)
        leaves.cancel()
        wait_until(lambda: queue_rows(server, "slow") == 1)
        assert outputs_of(head.result())["y"].tolist() == [[2.0, 2 * SLOW]]
        assert outputs_of(stays.result())["y"].tolist() == [[4.0, 4.0]]


# --- every request ends in exactly one counter


@dataclass(frozen=True)
class Books:
    """Requests of one protocol so far."""

    received: float
    in_flight: float
    answered: float
    failed: float
    refused: float
    cancelled: float

    @staticmethod
    def of(server: Server, protocol: str) -> "Books":
        page = Scrape(server)
        ends = {
            outcome: page.sum("accelserve_requests_total", protocol=protocol, outcome=outcome)
            for outcome in ("answered", "failed", "refused", "cancelled")
        }
        received = page.sum("accelserve_requests_received_total", protocol=protocol)
        return Books(received, page.sum("accelserve_requests_in_flight", protocol=protocol), **ends)

    @property
    def ended(self) -> float:
        return self.answered + self.failed + self.refused + self.cancelled

    def since(self, earlier: "Books") -> dict[str, float]:
        names = ("received", "answered", "failed", "refused", "cancelled")
        return {name: getattr(self, name) - getattr(earlier, name) for name in names}


def settled(server: Server, protocol: str) -> Books | None:
    books = Books.of(server, protocol)
    return books if books.in_flight == 0 else None


def test_after_a_storm_over_http_every_request_is_in_exactly_one_counter(server):
    before = wait_until(lambda: settled(server, "http"))
    blockers = [Connection(server.http_port) for _ in range(3)]
    blockers[0].send(predict_path("narrow"), instances((1, SLOW)))
    wait_until(lambda: running(server, "narrow") == 1)
    for connection in blockers[1:]:
        connection.send(predict_path("narrow"), instances((1, 1)))
    wait_until(lambda: queue_rows(server, "narrow") == 2)
    storm = (
        [(predict_path("quick"), instances((i, i))) for i in range(20)]
        + [(predict_path("quick"), b"{"), (predict_path("nobody"), instances((1, 1))), ("/score", b"x")] * 5
        + [(predict_path("narrow"), instances((1, 1)))] * 7
        + [("/score?model=image", BROKEN_JPEG)] * 4
    )
    answers = ask_all(server, storm)
    late = ask(server, predict_path("slow"), instances((1, SLOW)), {"x-accelserve-timeout-ms": "20"})
    for connection in blockers[1:]:
        connection.close()
    assert blockers[0].read().status == 200
    blockers[0].close()
    oversized = ask(server, "/score", headers={"content-length": str(2**40)})
    assert [answer.status for answer in answers].count(503) == 7
    assert (late.status, oversized.status) == (504, 413)
    after = wait_until(lambda: settled(server, "http"))
    assert after.received == after.ended
    assert after.since(before) == {
        "received": 3 + len(storm) + 2,
        "answered": 20 + 1,
        "failed": 15 + 4 + 1,
        "refused": 7 + 1,
        "cancelled": 2,
    }


def test_after_a_storm_over_grpc_every_call_is_in_exactly_one_counter(server):
    before = wait_until(lambda: settled(server, "grpc"))
    with Calls(server) as calls:
        running_one = calls.start("narrow", {"x": row(1, SLOW)})
        wait_until(lambda: running(server, "narrow") == 1)
        queued = [calls.start("narrow", {"x": row(1, 1)}) for _ in range(2)]
        wait_until(lambda: queue_rows(server, "narrow") == 2)
        refused = [calls.start("narrow", {"x": row(1, 1)}) for _ in range(6)]
        good = [calls.start("quick", {"x": row(i, i)}) for i in range(20)]
        bad = [calls.start("quick", {"z": row(1, 1)}), calls.start("nobody", {"x": row(1, 1)})]
        assert [call.exception().code() for call in refused] == [grpc.StatusCode.UNAVAILABLE] * 6
        assert [call.exception() for call in good] == [None] * 20
        assert all(call.exception() for call in bad)
        for call in queued:
            call.cancel()
        assert running_one.exception() is None
        late = calls.start("slow", {"x": row(1, SLOW)}, timeout_s=0.1)
        assert late.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
        after = wait_until(lambda: settled(server, "grpc"))
    assert after.received == after.ended
    since = after.since(before)
    ended_late = since.pop("failed") + since.pop("cancelled")  # who notices the deadline first, grpcio or we
    assert since == {"received": 3 + 6 + 20 + 2 + 1, "answered": 21, "refused": 6}
    assert ended_late == 2 + 2 + 1


# --- memory


def rss_bytes(server: Server) -> int:
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * 4096


def test_200_requests_of_2_mb_leave_no_memory_behind(server):
    body = np.zeros(BIG_FEATURES, np.float32).tobytes()
    headers = {"content-type": "application/octet-stream"}

    def post(count: int) -> None:
        with Connection(server.http_port) as connection:
            for _ in range(count):
                assert connection.ask("/score?model=big", body, headers).status == 200

    def storm(each: int) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(post, [each] * 4))

    storm(5)
    before = rss_bytes(server)
    storm(50)
    assert rss_bytes(server) - before < 48 * 2**20


# --- refusals are fast and useful


def test_a_full_queue_refuses_at_once_with_the_reason_and_when_to_come_again(server):
    with Connection(server.http_port) as head, Connection(server.http_port) as second, Calls(server) as calls:
        head.send(predict_path("narrow"), instances((1, SLOW)))
        wait_until(lambda: running(server, "narrow") == 1)
        second.send(predict_path("narrow"), instances((1, 1), (2, 2)))
        wait_until(lambda: queue_rows(server, "narrow") == 2)
        started = time.monotonic()
        over_http = ask(server, predict_path("narrow"), instances((1, 1)))
        over_grpc = calls.start("narrow", {"x": row(1, 1)}).exception()
        took_s = time.monotonic() - started
        still_running = running(server, "narrow")
        assert [head.read().status, second.read().status] == [200, 200]
    assert (over_http.status, over_http.headers["x-accelserve-reason"]) == (503, "queue_full")
    assert int(over_http.headers["retry-after"]) >= 1
    assert "2 of 2 rows" in over_http.json["error"]
    trailing = dict(over_grpc.trailing_metadata())
    assert (over_grpc.code(), trailing["x-accelserve-reason"]) == (grpc.StatusCode.UNAVAILABLE, "queue_full")
    assert int(trailing["retry-after"]) >= 1
    assert still_running == 1
    assert took_s < SLOW_S / 2


def test_a_deadline_that_passes_is_504_on_time_and_does_not_wait_for_the_model(server):
    with Connection(server.http_port) as head, Connection(server.http_port) as queued:
        headers = {"x-accelserve-timeout-ms": "200"}
        started = time.monotonic()
        head.send(predict_path("slow"), instances((1, SLOW)), headers)
        wait_until(lambda: running(server, "slow") == 1)
        queued.send(predict_path("slow"), instances((1, 1)), headers)
        answers = [head.read(), queued.read()]
        took_s = time.monotonic() - started
    first, second = [(answer.status, answer.headers["x-accelserve-reason"]) for answer in answers]
    assert first == (504, "deadline")
    assert second in ((504, "deadline"), (503, "wait_too_long"))  # by whether it is known what a run takes
    assert took_s < SLOW_S - 0.1, "answered only when the model was done"
    wait_until(lambda: running(server, "slow") == 0)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_high_priority_overtakes_low(server, protocol):
    finished: list[str] = []
    with ThreadPoolExecutor(4) as pool, Calls(server) as calls:

        def send(priority: str, columns: int) -> None:
            """Of a shape of its own, so that it rides alone."""
            x = np.ones((1, columns), np.float32)
            if protocol == "http":
                headers = {"x-accelserve-priority": priority}
                assert ask(server, predict_path("steps"), instances(*x.tolist()), headers).status == 200
            else:
                calls.start("steps", {"x": x}, metadata=[("x-accelserve-priority", priority)]).result()
            finished.append(priority)

        head = pool.submit(ask, server, predict_path("steps"), instances(*[(1, 1)] * 8))
        wait_until(lambda: running(server, "steps") == 1)
        sent = [pool.submit(send, *each) for each in (("low", 3), ("normal", 4), ("high", 5))]
        wait_until(lambda: queue_rows(server, "steps") == 3)
        for future in (head, *sent):
            future.result()
    assert finished == ["high", "normal", "low"]

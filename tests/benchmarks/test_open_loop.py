"""The open-loop generator: arrivals do not wait for answers."""

import asyncio

import pytest
from test_peers import Answers

from benchmarks.open_loop import Pool, Seen, arrivals, drive, request_bytes, said

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
REFUSAL = b"HTTP/1.1 503 Service Unavailable\r\nx-accelserve-reason: wait_too_long\r\ncontent-length: 2\r\n\r\n{}"


def test_arrivals_have_the_rate_that_was_asked_for_and_repeat():
    times = list(arrivals(1000.0, 4.0))
    assert len(times) == pytest.approx(4000, rel=0.1)
    assert times == sorted(times) == list(arrivals(1000.0, 4.0))
    assert times[-1] < 4.0


def test_answers_are_told_apart_by_deadline_status_and_reason():
    seen = Seen()
    for message, took_ms in ((ANSWER, 5.0), (ANSWER, 101.0), (REFUSAL, 1.0)):
        seen.add(message.partition(b"\r\n\r\n")[0], took_ms, 100.0)
    told = said(seen, 4, 1, 2.0)
    assert (told["in_time"], told["late"], told["refused"], told["unanswered"]) == (1, 1, 1, 1)
    assert told["refused_why"] == {"503 wait_too_long": 1}
    assert told["goodput_rps"] == 0.5


def test_a_request_carries_its_deadline_and_its_query():
    head = request_bytes("http://127.0.0.1:1/score?model=a", b"xy", "image/jpeg", 100.0)
    assert head.startswith(b"POST /score?model=a HTTP/1.1\r\n")
    assert b"\r\nx-accelserve-timeout-ms: 100\r\n" in head
    assert head.endswith(b"\r\n\r\nxy")


def test_more_arrive_than_there_are_connections_and_all_are_counted(monkeypatch):
    monkeypatch.setattr("benchmarks.open_loop.CONNECTIONS", 2)

    with Answers({"predictions": []}) as url:
        request = request_bytes(url, b"{}", "application/json", 1000.0)
        told = asyncio.run(drive(url, request, 400.0, 0.5, 1000.0))
    assert told["arrived"] > 100
    assert told["in_time"] + told["late"] + told["unanswered"] == told["arrived"]
    assert told["lost"] == 0


def test_what_waits_for_a_connection_is_part_of_what_was_never_answered():
    async def run():
        pool = Pool(b"", 100.0)
        pool.arrive(0.0)
        pool.arrive(0.1)
        return pool.close()

    assert asyncio.run(run()) == 2

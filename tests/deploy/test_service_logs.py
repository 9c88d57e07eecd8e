"""Logs of several processes: kept small, read together in the order of their times."""

import os

from accelserve.deploy.logs import (
    keep_small,
    mark_ready,
    mark_start,
    open_log,
    read_together,
    replica_log,
    supervisor_log,
)


def stamp(second: int) -> str:
    return f"2026-11-26T08:00:{second:02d}.000Z"


def write(path, *lines: str) -> None:
    descriptor = open_log(path)
    os.write(descriptor, "".join(f"{line}\n" for line in lines).encode())
    os.close(descriptor)


def test_lines_of_all_processes_come_in_the_order_of_their_times(tmp_path):
    write(replica_log(tmp_path, 0), f"{stamp(1)} INFO a", f"{stamp(4)} ERROR b", "Traceback", "  line")
    write(replica_log(tmp_path, 1), "printed before any time", f"{stamp(2)} INFO c", f"{stamp(5)} INFO d")
    write(supervisor_log(tmp_path), f"{stamp(3)} INFO e")
    assert [line.partition("Z ")[2] or line for line in read_together(tmp_path, 100)] == [
        "[1] printed before any time",
        *("INFO a", "INFO c", "INFO e", "ERROR b", "[0] Traceback", "[0]   line", "INFO d"),
    ]
    assert read_together(tmp_path, 1) == [f"[1] {stamp(5)} INFO d"]
    assert read_together(tmp_path / "nowhere", 5) == []


def test_only_the_last_start_is_shown_where_that_is_wanted(tmp_path):
    log = replica_log(tmp_path, 0)
    mark_start(log, "process 1")
    write(log, "died")
    mark_start(log, "process 2")
    write(log, "loading")
    mark_ready(log)
    write(log, "serving")
    write(supervisor_log(tmp_path), "mine")
    shown = read_together(tmp_path, 100, start_only=True)
    assert [line.rpartition("accelserve.deploy ")[2] for line in shown] == [
        *("replica starts: process 2", "[0] loading", "replica is ready"),
    ]


def test_a_large_log_is_put_aside_while_it_is_written_to(tmp_path):
    log = replica_log(tmp_path, 0)
    descriptor = open_log(log)
    for _ in range(3):
        os.write(descriptor, b"x" * 600 + b"\n")
        keep_small(log, 1000)
    os.write(descriptor, b"last\n")
    os.close(descriptor)
    assert log.stat().st_size == 606
    assert log.with_name("replica-0.log.1").stat().st_size == 1202
    assert read_together(tmp_path, 1) == ["[0] last"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2000


def test_a_log_that_cannot_be_copied_is_cut_all_the_same(tmp_path):
    log = replica_log(tmp_path, 0)
    write(log, "x" * 2000)
    log.with_name("replica-0.log.1").mkdir()
    keep_small(log, 1000)
    assert log.stat().st_size == 0


def test_bytes_that_are_no_text_are_shown(tmp_path):
    replica_log(tmp_path, 0).write_bytes(b"\xff\n")
    assert read_together(tmp_path, 5) == ["[0] \\xff"]

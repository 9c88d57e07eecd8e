"""Captures are alone; runs go on together when they are over."""

import threading

import pytest

from accelserve.backends.onnx_runtime.cuda_graphs import CaptureGate, GraphThread, graph_id

WAIT_S = 30


def test_runs_share_the_gate():
    gate = CaptureGate()
    together = threading.Barrier(2, timeout=WAIT_S)

    def run() -> None:
        with gate.shared():
            together.wait()

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert not together.broken


def test_a_capture_waits_for_the_run_under_way_and_later_runs_wait_for_it():
    gate, order = CaptureGate(), []
    running, release = threading.Event(), threading.Event()

    def run() -> None:
        with gate.shared():
            running.set()
            release.wait(WAIT_S)
            order.append("run")

    def capture() -> None:
        with gate.alone():
            order.append("capture")

    def late() -> None:
        with gate.shared():
            order.append("late run")

    threads = [threading.Thread(target=run), threading.Thread(target=capture)]
    threads[0].start()
    assert running.wait(WAIT_S)
    threads[1].start()
    while not gate._captures:  # until the capture waits; it does so without being told to
        assert threads[1].is_alive()
    threads.append(threading.Thread(target=late))
    threads[2].start()
    release.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert order == ["run", "capture", "late run"]


def test_a_capture_that_fails_lets_runs_go_on():
    gate = CaptureGate()
    with pytest.raises(RuntimeError), gate.alone():
        raise RuntimeError("capture failed")
    with gate.shared():
        pass
    with gate.alone():
        pass


def test_the_graph_thread_runs_all_on_one_thread_and_raises_what_is_raised():
    thread = GraphThread("m")
    names = {thread.call(lambda options: threading.current_thread().name, None) for _ in range(3)}
    assert len(names) == 1
    assert threading.current_thread().name not in names
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda options: 1 / options, 0)
    thread.close()


def test_each_size_and_slot_has_a_graph_id_of_its_own_and_none_is_the_default():
    ids = [graph_id(rows, slot, 2) for rows in (1, 2, 3, 8) for slot in (0, 1)]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0

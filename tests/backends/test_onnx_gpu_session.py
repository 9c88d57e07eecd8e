"""A GPU session up to the device's edge: bound memory, two batches in flight, full memory; on played CUDA."""

import asyncio
import threading

import numpy as np
import pytest
from played_cuda import CUDA_OUT_OF_MEMORY, SECOND_GPU, THE_GPU
from played_gpu import OUT_OF_MEMORY, SIZES, ask, floats, shrinks

import model_builders
from accelserve.backends.base import SessionOptions, buffers_of
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler, Scored, Work
from accelserve.clock import MonotonicClock
from accelserve.errors import Kind, ScoringError


def test_a_batch_is_answered_through_device_memory(gpu, affine):
    assert ask(gpu.load(affine), floats(1, 2, 5)).tolist() == [[2.5], [3.0], [4.5]]
    assert {device for device, _ in gpu.cudart.device.values()} == {0}


def test_nothing_is_allocated_for_a_request_once_the_model_is_loaded(gpu, affine):
    session = gpu.load(affine)
    before = gpu.cudart.allocations
    for rows in (1, 2, 3, 4, 1):
        ask(session, floats(*range(rows)))
    assert gpu.cudart.allocations == before


def test_two_slots_have_each_an_input_and_an_output_on_the_device(gpu, affine):
    gpu.load(affine)
    assert len(gpu.cudart.device) == len(gpu.cudart.host) == 4
    assert len(gpu.cudart.streams) == 2


def test_closing_gives_all_device_memory_and_streams_back(gpu, affine):
    session = gpu.load(affine)
    ask(session, floats(1))
    session.close()
    assert gpu.cudart.device == {}
    assert gpu.cudart.streams == {}


def test_page_locked_memory_that_was_lent_outlives_the_session(gpu, affine):
    session = gpu.load(affine)
    lent = session.buffers("serving_default", 2)
    session.close()
    lent["x"][:] = floats(1, 2)
    assert lent["x"].tolist() == [[1], [2]]
    del lent, session
    gpu.sessions.clear()
    assert gpu.cudart.host == {}


def test_two_batches_are_in_flight_at_once(gpu, affine):
    session = gpu.load(affine)
    limits = gpu.backend.capabilities(THE_GPU, SessionOptions())
    both = threading.Barrier(limits.max_inflight, timeout=30)
    gpu.runtime.before_run = both.wait  # a run that is alone would wait in vain
    answers: dict[int, list] = {}
    threads = [
        threading.Thread(target=lambda v=v: answers.update({v: ask(session, floats(v)).tolist()})) for v in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert limits.max_inflight == 2
    assert answers == {1: [[2.5]], 2: [[3.0]]}


def test_all_slots_are_run_at_once_before_the_first_request(gpu, affine):
    together = threading.Barrier(2, timeout=30)
    gpu.runtime.before_run = together.wait  # a run that is alone would wait in vain, and break it
    gpu.load(affine)
    assert not together.broken
    assert len({name for name, _ in gpu.loading_runs}) == 2


def test_a_gpu_that_has_no_room_for_two_batches_at_once_says_so_at_load(gpu, affine):
    gpu.runtime.run_failures.append(OUT_OF_MEMORY)
    with pytest.raises(ScoringError, match="m:3 does not fit on gpu:0") as refusal:
        gpu.load(affine)
    assert refusal.value.kind is Kind.DEVICE_MEMORY
    assert gpu.cudart.device == {}


def test_a_model_that_refuses_zeros_is_loaded_all_the_same(gpu, affine):
    gpu.runtime.run_failures.append(RuntimeError("indices element out of data bounds"))
    assert ask(gpu.load(affine), floats(1)).item() == 2.5


def test_an_answer_does_not_change_when_its_slot_is_used_again(gpu, affine):
    session = gpu.load(affine)
    answers = [ask(session, floats(value)) for value in range(6)]
    assert [answer.item() for answer in answers] == [2.0, 2.5, 3.0, 3.5, 4.0, 4.5]


def test_a_batch_stacked_into_the_slot_is_not_copied_again(gpu, affine):
    session = gpu.load(affine)
    lent = buffers_of(session)("serving_default", 3)
    lent["x"][:] = floats(1, 2, 5)
    assert lent["x"].ctypes.data in gpu.cudart.host
    assert ask(session, lent["x"]).tolist() == [[2.5], [3.0], [4.5]]


def test_a_slot_is_free_again_after_its_batch_whether_answered_or_failed(gpu, affine):
    session = gpu.load(affine)
    for _ in range(3):
        ask(session, floats(1))
        gpu.runtime.run_failures.append(RuntimeError("no such luck"))
        with pytest.raises(ScoringError):
            ask(session, floats(1))
    assert gpu.runtime.unbound_runs == 0


def test_a_batch_larger_than_the_slots_is_run_without_them(gpu, affine):
    assert ask(gpu.load(affine), floats(*range(9))).shape == (9, 1)


def test_a_third_batch_at_once_is_run_without_a_slot(gpu, affine):
    session = gpu.load(affine)
    kept = []

    def borrow() -> None:
        kept.append(session.buffers("serving_default", 1))

    for _ in range(2):
        thread = threading.Thread(target=borrow)
        thread.start()
        thread.join(30)
    assert session.buffers("serving_default", 1) is None
    assert ask(session, floats(1)).tolist() == [[2.5]]


def test_what_the_graph_reads_on_the_host_is_bound_there(gpu, affine):
    gpu.runtime.on_host = {"x"}
    session = gpu.load(affine)
    assert len(gpu.cudart.device) == 2  # the outputs of two slots
    assert [ask(session, floats(v)).item() for v in (1, 2)] == [2.5, 3.0]


def test_a_model_of_strings_runs_without_bound_memory_and_says_so(gpu, tmp_path):
    from onnx import TensorProto

    session = gpu.load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.STRING))
    x = np.array([[b"a", b"b"]], object)
    assert ask(session, x).tolist() == x.tolist()
    assert session.remarks == ('runs without bound memory: input "x" is of strings',)


def test_a_model_with_free_inner_sizes_runs_without_bound_memory(gpu, tmp_path):
    from onnx import TensorProto

    session = gpu.load(model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.FLOAT, ("batch", "width")))
    assert ask(session, floats(1, 2)).tolist() == [[1], [2]]
    assert session.buffers("serving_default", 1) is None
    assert gpu.cudart.device == {}


def test_io_binding_can_be_left_out(gpu, affine):
    session = gpu.load(affine, io_binding=False)
    assert ask(session, floats(1)).item() == 2.5
    assert gpu.cudart.device == {}
    assert gpu.backend.capabilities(THE_GPU, SessionOptions(extra={"io_binding": False})).max_inflight == 1


def test_the_second_gpu_gets_its_own_provider_memory_and_copies(gpu, affine):
    session = gpu.load(affine, SECOND_GPU)
    answers: list[float] = []
    thread = threading.Thread(target=lambda: answers.append(ask(session, floats(1)).item()))  # CUDA's own default: 0
    thread.start()
    thread.join(30)
    assert answers == [2.5]
    assert gpu.runtime.opened[0]["providers"][0][1]["device_id"] == "1"
    assert {device for device, _ in gpu.cudart.device.values()} == {1}


@pytest.mark.parametrize("extra", [{}, {"cuda_graphs": True}], ids=["plain", "graphs"])
def test_requests_in_random_batches_get_the_answers_they_would_get_alone(gpu, affine, extra):
    session = gpu.load(affine, sizes=SIZES, **extra)
    signature = session.signatures["serving_default"]
    random = np.random.default_rng(7)
    inputs = [random.normal(size=(int(rows), 1)).astype(np.float32) for rows in random.integers(1, 7, 1000)]

    async def serve() -> list[Scored]:
        policy = BatchPolicy(max_batch_size=4, allowed_batch_sizes=SIZES)
        async with Scheduler([session], policy, MonotonicClock(), max_inflight=2) as scheduler:
            works = [Work(signature, {"x": x}, ("y",), len(x), batched=True) for x in inputs]
            return await asyncio.gather(*(scheduler.submit(work) for work in works))

    before = gpu.cudart.allocations
    for x, scored in zip(inputs, asyncio.run(serve()), strict=True):
        np.testing.assert_array_equal(scored.outputs["y"], x * np.float32(0.5) + np.float32(2))
    assert gpu.cudart.allocations == before


# -- memory ---------------------------------------------------------------------------------------------------------


def test_memory_that_is_full_fails_one_batch_and_the_session_lives_on(gpu, affine):
    session = gpu.load(affine)
    gpu.runtime.run_failures.append(OUT_OF_MEMORY)
    with pytest.raises(ScoringError, match="Available memory") as failure:
        ask(session, floats(1, 2))
    assert failure.value.kind is Kind.DEVICE_MEMORY
    assert failure.value.kind.http_status == 503
    assert [ask(session, floats(v)).item() for v in (1, 2, 3)] == [2.5, 3.0, 3.5]


def test_after_full_memory_the_next_run_shrinks_the_arena_and_later_ones_do_not(gpu, affine):
    session = gpu.load(affine, SECOND_GPU)
    gpu.runtime.run_failures.append(OUT_OF_MEMORY)
    with pytest.raises(ScoringError):
        ask(session, floats(1))
    ask(session, floats(1))
    ask(session, floats(1))
    assert [shrinks(options) for _, options in gpu.runtime.runs] == [None, "gpu:1", None]


def test_large_batches_shrink_the_arena_where_that_is_set(gpu, affine):
    session = gpu.load(affine, arena_shrink_above_rows=2)
    for rows in (1, 3, 2):
        ask(session, floats(*range(rows)))
    assert [shrinks(options) for _, options in gpu.runtime.runs] == [None, "gpu:0", None]


def test_an_arena_that_cannot_be_shrunk_does_not_fail_the_batch(gpu, affine, caplog):
    session = gpu.load(affine, arena_shrink_above_rows=1)
    text = "Did not find an arena based allocator registered for device-id combination in the memory arena shrink list"
    gpu.runtime.run_failures.append(RuntimeError(f"{text}: gpu:0"))
    assert ask(session, floats(1, 2)).tolist() == [[2.5], [3.0]]
    ask(session, floats(1, 2))
    assert [shrinks(options) for _, options in gpu.runtime.runs] == ["gpu:0", None, None]
    assert "not shrunk" in caplog.text


def test_a_gpu_too_full_for_the_slots_says_so_and_keeps_nothing(gpu, affine):
    gpu.cudart.fail_next_malloc = CUDA_OUT_OF_MEMORY
    with pytest.raises(ScoringError, match=r"m:3 does not fit on gpu:0: CUDA failure 2: out of memory") as refusal:
        gpu.load(affine)
    assert refusal.value.kind is Kind.DEVICE_MEMORY
    assert gpu.cudart.device == {}
    assert ask(gpu.load(affine), floats(1)).item() == 2.5


def test_a_gpu_lost_in_a_copy_is_lost(gpu, affine):
    session = gpu.load(affine)
    gpu.cudart.lost = 719
    with pytest.raises(ScoringError, match="CUDA failure 719") as failure:
        ask(session, floats(1))
    assert failure.value.kind is Kind.DEVICE_LOST
    assert gpu.backend.health(THE_GPU).state.value == "lost"

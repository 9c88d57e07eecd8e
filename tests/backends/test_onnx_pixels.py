"""Pixels through ONNX sessions: on the CPU for real, bound and not; on played CUDA up to the device's edge."""

import asyncio
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper
from played_cuda import CUDA_OUT_OF_MEMORY, SECOND_GPU, THE_GPU
from small_networks import scorer, sum_and_difference, twice, value, write

from accelserve.backends.base import Batch, ModelArtifact, SessionOptions, TakesPixels, buffers_of
from accelserve.backends.onnx_runtime.backend import OnnxRuntimeBackend
from accelserve.backends.onnx_runtime.options import CUDA
from accelserve.batching.policy import BatchPolicy
from accelserve.batching.scheduler import Scheduler, Work
from accelserve.clock import MonotonicClock
from accelserve.errors import Kind, ScoringError
from accelserve.models.manifest import Manifest
from accelserve.models.pixels import take_pixels
from accelserve.models.self_check import check_pixels
from accelserve.preprocessing import Preprocessing

SIZE = (4, 6)
SIZES = (1, 4)
STEPS = Preprocessing(SIZE, layout="NCHW", mean=(123.68, 116.779, 103.939), scale=(1 / 58.4, 1 / 57.1, 1 / 57.4))
BOUND, UNBOUND = {"io_binding": True}, {"io_binding": False}
SERVED = "serving_default"


@pytest.fixture(scope="module")
def planes(tmp_path_factory):
    return scorer(tmp_path_factory.mktemp("planes") / "m.onnx", TensorProto.FLOAT, 3, *SIZE)


def pixels(rows: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *SIZE, 3), np.uint8)


def floats_of(rows: np.ndarray) -> np.ndarray:
    """What the host makes of pixels (test_pixel_graph.py holds this against the decoder)."""
    return ((rows.astype(np.float32) - np.float32(STEPS.mean)) * np.float32(STEPS.scale)).transpose(0, 3, 1, 2)


def load_on_cpu(path, **extra):
    backend = OnnxRuntimeBackend()
    asked = SessionOptions(threads=1, max_batch_size=4, extra=extra)
    artifact, device = ModelArtifact("m", 3, "onnx", path), backend.inventory().devices[0]
    prepared = backend.prepare(artifact, device, asked, None, lambda what, done: None)
    return backend.load(prepared, device, asked, None)


def ask(session, signature: str, rows: np.ndarray) -> np.ndarray:
    return session.run(Batch(signature, {"image": rows}, ("scores",), len(rows))).outputs["scores"]


def refusal_of(session, steps=STEPS, signature=SERVED) -> ScoringError:
    with pytest.raises(ScoringError) as refusal:
        session.take_pixels(signature, steps)
    return refusal.value


# -- on the CPU -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [BOUND, UNBOUND], ids=["bound", "unbound"])
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
def test_pixels_get_the_answer_of_the_hosts_floats_bit_for_bit(planes, extra, rows):
    session = load_on_cpu(planes, **extra)
    taken = session.take_pixels(SERVED, STEPS)
    np.testing.assert_array_equal(ask(session, taken.name, pixels(rows)), ask(session, SERVED, floats_of(pixels(rows))))


@pytest.mark.parametrize("extra", [BOUND, UNBOUND], ids=["bound", "unbound"])
def test_the_signature_of_pixels_is_the_models_but_for_its_input(planes, extra):
    session = load_on_cpu(planes, **extra)
    public = session.signatures[SERVED]
    taken = session.take_pixels(SERVED, STEPS)
    assert isinstance(session, TakesPixels)
    assert session.signatures == {SERVED: public}
    assert taken.outputs == public.outputs
    assert str(taken.inputs["image"]) == "uint8[-1,4,6,3]"
    assert taken.inputs["image"].tensor_name == public.inputs["image"].tensor_name
    assert taken.batched


def test_asked_again_it_has_it_already_and_refuses_to_normalise_in_two_ways(planes):
    session = load_on_cpu(planes)
    assert session.take_pixels(SERVED, STEPS) is session.take_pixels(SERVED, STEPS)
    assert "something else" in refusal_of(session, Preprocessing(SIZE, layout="NCHW")).message


def test_pixels_are_stacked_into_the_slot_and_read_there(planes):
    session = load_on_cpu(planes, **BOUND)
    taken = session.take_pixels(SERVED, STEPS)
    lent = buffers_of(session)(taken.name, 3)["image"]
    assert (lent.dtype, lent.shape) == (np.uint8, (3, *SIZE, 3))
    lent[:] = pixels(3)
    wanted = ask(load_on_cpu(planes), SERVED, floats_of(pixels(3)))
    np.testing.assert_array_equal(ask(session, taken.name, lent), wanted)


def test_an_input_of_half_precision_takes_pixels_too(tmp_path):
    path = scorer(tmp_path / "half.onnx", TensorProto.FLOAT16, 3, *SIZE)
    session = load_on_cpu(path, **BOUND)
    taken = session.take_pixels(SERVED, STEPS)
    halves = floats_of(pixels(2)).astype(np.float16)
    np.testing.assert_array_equal(ask(session, taken.name, pixels(2)), ask(session, SERVED, halves))


@pytest.mark.parametrize("extra", [BOUND, UNBOUND], ids=["bound", "unbound"])
def test_a_model_of_one_row_without_a_batch_axis_takes_pixels_too(tmp_path, extra):
    session = load_on_cpu(twice(tmp_path / "m.onnx", TensorProto.FLOAT, 1, 3, *SIZE), **extra)
    taken = session.take_pixels(SERVED, STEPS)
    assert not taken.batched
    made = session.run(Batch(taken.name, {"x": pixels(1)}, ("y",), 1)).outputs["y"]
    np.testing.assert_array_equal(made, 2 * floats_of(pixels(1)))


def test_what_the_device_cannot_do_is_refused_with_the_reason(tmp_path, planes):
    letterbox = refusal_of(load_on_cpu(planes), Preprocessing(SIZE, "letterbox", layout="NCHW"))
    assert letterbox.kind is Kind.UNSUPPORTED
    assert "m:3" in letterbox.message
    assert "letterbox" in letterbox.message
    photo = scorer(tmp_path / "photo.onnx", TensorProto.UINT8, *SIZE, 3)
    assert "nothing to normalise" in refusal_of(load_on_cpu(photo), Preprocessing(SIZE)).message
    assert "2 inputs" in refusal_of(load_on_cpu(sum_and_difference(tmp_path / "two.onnx"))).message


@pytest.mark.parametrize("extra", [BOUND, UNBOUND], ids=["bound", "unbound"])
def test_wrong_pixels_are_refused_and_the_session_lives_on(planes, extra):
    session = load_on_cpu(planes, **extra)
    taken = session.take_pixels(SERVED, STEPS)
    for wrong in (floats_of(pixels(1)), pixels(1)[:, :3]):
        with pytest.raises(ScoringError, match=r"want uint8\[-1,4,6,3\]") as refusal:
            ask(session, taken.name, wrong)
        assert refusal.value.kind is Kind.INVALID
    assert ask(session, taken.name, pixels(1)).shape == (1, 5)


def test_a_model_whose_output_has_other_rows_takes_pixels_without_bound_memory(tmp_path, caplog):
    """scores = every other row, flat: the signature promises one for each."""
    numbers = {"from": [0], "to": [2**31], "axis": [0], "step": [2]}
    path = write(
        tmp_path / "m.onnx",
        [
            helper.make_node("Flatten", ["image"], ["flat"], axis=1),
            helper.make_node("Slice", ["flat", "from", "to", "axis", "step"], ["scores"]),
        ],
        [value("image", TensorProto.FLOAT, "n", 3, *SIZE)],
        [value("scores", TensorProto.FLOAT, "m", 72)],
        **{name: np.array(number, np.int64) for name, number in numbers.items()},
    )
    session = load_on_cpu(path, **BOUND)
    taken = session.take_pixels(SERVED, STEPS)
    for _ in range(2):
        np.testing.assert_array_equal(ask(session, taken.name, pixels(3)), floats_of(pixels(3))[::2].reshape(2, -1))
    assert session.buffers(taken.name, 3) is None
    assert caplog.text.count("runs without bound memory") == 1


def test_a_closed_session_runs_no_pixels(planes):
    session = load_on_cpu(planes, **BOUND)
    taken = session.take_pixels(SERVED, STEPS)
    session.close()
    with pytest.raises(ScoringError):
        ask(session, taken.name, pixels(1))


# -- on played CUDA -------------------------------------------------------------------------------------------------


@pytest.fixture(params=[{}, {"cuda_graphs": True}], ids=["plain", "graphs"])
def extra(request):
    return request.param


def test_pixels_cross_to_the_gpu_as_bytes_and_become_the_models_input_there(gpu, planes, extra):
    session = gpu.load(planes, sizes=SIZES, **extra)
    taken = session.take_pixels(SERVED, STEPS)
    crossed = []
    copy = gpu.cudart.cudaMemcpyAsync
    gpu.cudart.cudaMemcpyAsync = lambda to, source, size, kind, stream: (
        crossed.append((kind, size.value)) or copy(to, source, size, kind, stream)
    )
    answers = ask(session, taken.name, pixels(4))
    assert crossed == [(1, pixels(4).nbytes), (2, answers.nbytes)]
    np.testing.assert_array_equal(answers, ask(load_on_cpu(planes), SERVED, floats_of(pixels(4))))


def test_the_graph_of_pixels_is_on_the_same_gpu_wholly_and_never_captured(gpu, planes, extra):
    session = gpu.load(planes, SECOND_GPU, sizes=SIZES, **extra)
    session.take_pixels(SERVED, STEPS)
    (name, settings), *others = gpu.runtime.opened[-1]["providers"]
    assert (name, settings["device_id"], others) == (CUDA, "1", [])
    assert "enable_cuda_graph" not in settings
    assert gpu.runtime.entries["session.disable_cpu_ep_fallback"] == "1"
    assert {device for device, _ in gpu.cudart.device.values()} == {1}


def test_the_model_runs_after_its_pixels_on_the_thread_that_its_graphs_want(gpu, planes):
    session = gpu.load(planes, sizes=SIZES, cuda_graphs=True)
    taken = session.take_pixels(SERVED, STEPS)
    gpu.runtime.runs.clear()
    ask(session, taken.name, pixels(4))
    (of_pixels, options), (of_model, captured) = gpu.runtime.runs
    assert (of_pixels, options) == (threading.current_thread().name, None)
    assert of_model == "m:3-graphs_0"
    assert captured.get_run_config_entry("gpu_graph_id") in ("8", "9")


def test_nothing_is_allocated_for_pixels_once_they_are_taken(gpu, planes, extra):
    session = gpu.load(planes, sizes=SIZES, **extra)
    taken = session.take_pixels(SERVED, STEPS)
    before = gpu.cudart.allocations
    for rows in (1, 2, 3, 4, 1):
        ask(session, taken.name, pixels(rows))
    assert gpu.cudart.allocations == before
    assert gpu.runtime.unbound_runs == 0


def test_all_slots_run_pixels_at_once_before_the_first_request(gpu, planes):
    session = gpu.load(planes)
    together = threading.Barrier(2, timeout=30)
    gpu.runtime.before_run = together.wait  # a run that is alone would wait in vain, and break it
    session.take_pixels(SERVED, STEPS)
    assert not together.broken
    assert len(gpu.runtime.runs) == 2


def test_a_gpu_takes_pixels_unasked_and_passes_the_check_that_loading_makes(gpu, planes, extra):
    session = gpu.load(planes, sizes=SIZES, **extra)
    path = take_pixels([session], {SERVED: STEPS}, Manifest()).by_signature[SERVED]
    policy = BatchPolicy(max_batch_size=4, allowed_batch_sizes=SIZES)
    told = check_pixels(session, session.signatures[SERVED], path, STEPS, policy, deterministic=False)
    assert told == "pixels normalised on the device get the host's answers"


def test_closing_gives_the_memory_of_pixels_back(gpu, planes):
    session = gpu.load(planes)
    ask(session, session.take_pixels(SERVED, STEPS).name, pixels(2))
    session.close()
    assert gpu.cudart.device == {}
    assert gpu.cudart.streams == {}


def test_a_gpu_without_room_for_pixels_says_so(gpu, planes):
    session = gpu.load(planes)
    gpu.cudart.fail_next_malloc = CUDA_OUT_OF_MEMORY
    refusal = refusal_of(session)
    assert refusal.kind is Kind.DEVICE_MEMORY
    assert "m:3 does not fit on gpu:0" in refusal.message


def test_a_gpu_lost_while_it_normalises_is_lost(gpu, planes):
    session = gpu.load(planes)
    taken = session.take_pixels(SERVED, STEPS)
    gpu.runtime.run_failures.append(RuntimeError("CUDA failure 719: unspecified launch failure"))
    with pytest.raises(ScoringError) as failure:
        ask(session, taken.name, pixels(1))
    assert failure.value.kind is Kind.DEVICE_LOST
    assert gpu.backend.health(THE_GPU).state.value == "lost"


def test_without_bound_memory_the_gpu_normalises_all_the_same(gpu, planes):
    session = gpu.load(planes, **UNBOUND)
    taken = session.take_pixels(SERVED, STEPS)
    gpu.runtime.left_on.clear()
    answers = ask(session, taken.name, pixels(3))
    np.testing.assert_array_equal(answers, ask(load_on_cpu(planes), SERVED, floats_of(pixels(3))))
    assert gpu.runtime.left_on == [("cuda", 0)]


def test_pixels_and_floats_mixed_at_random_get_the_answers_they_would_get_alone(gpu, planes, extra):
    session = gpu.load(planes, sizes=SIZES, **extra)
    public, taken = session.signatures[SERVED], session.take_pixels(SERVED, STEPS)
    random = np.random.default_rng(7)
    asked = [
        (taken if random.random() < 0.5 else public, pixels(int(rows), seed))
        for seed, rows in enumerate(random.integers(1, 7, 300))
    ]

    async def serve():
        policy = BatchPolicy(max_batch_size=4, allowed_batch_sizes=SIZES)
        async with Scheduler([session], policy, MonotonicClock(), max_inflight=2) as scheduler:
            works = [
                Work(s, {"image": rows if s is taken else floats_of(rows)}, ("scores",), len(rows), batched=True)
                for s, rows in asked
            ]
            return await asyncio.gather(*(scheduler.submit(work) for work in works))

    before = gpu.cudart.allocations
    scored = asyncio.run(serve())
    alone = load_on_cpu(planes)
    for (_, rows), found in zip(asked, scored, strict=True):
        wanted = np.concatenate([ask(alone, SERVED, floats_of(row[None])) for row in rows])
        np.testing.assert_allclose(found.outputs["scores"], wanted, rtol=1e-5, atol=1e-6)
    assert gpu.cudart.allocations == before


def test_pixels_wait_with_a_quarter_of_the_bytes_and_never_ride_with_floats(planes):
    session = load_on_cpu(planes)
    public, taken = session.signatures[SERVED], session.take_pixels(SERVED, STEPS)
    of_pixels = Work(taken, {"image": pixels(2)}, ("scores",), 2, batched=True)
    of_floats = Work(public, {"image": floats_of(pixels(2))}, ("scores",), 2, batched=True)
    assert 4 * of_pixels.nbytes == of_floats.nbytes
    assert of_pixels.group != of_floats.group

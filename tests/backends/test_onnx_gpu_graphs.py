"""CUDA graphs of an ONNX session, on played CUDA: when they are captured, and who replays them."""

import threading

import pytest
from played_gpu import OUT_OF_MEMORY, SIZES, ask, floats, shrinks

import model_builders
from accelserve.errors import Kind, ScoringError


def test_graphs_are_captured_at_load_for_each_size_and_slot(gpu, affine):
    gpu.load(affine, sizes=SIZES, cuda_graphs=True)
    assert gpu.runtime.opened[0]["providers"][0][1]["enable_cuda_graph"] == "1"
    assert [options.get_run_config_entry("gpu_graph_id") for _, options in gpu.loading_runs] == ["2", "3", "8", "9"]


def test_graphs_are_captured_on_zeros_and_not_on_what_lay_in_memory(gpu, affine):
    seen = []
    gpu.runtime.before_run = lambda: seen.append([bytes(room) for _, room in gpu.cudart.device.values()])
    gpu.load(affine, sizes=SIZES, cuda_graphs=True)
    assert seen[-1].count(bytes(16)) == 2  # both slots' input of four rows


def test_a_batch_of_a_captured_size_replays_its_graph(gpu, affine):
    session = gpu.load(affine, sizes=SIZES, cuda_graphs=True)
    assert ask(session, floats(1, 2, 3, 4)).tolist() == [[2.5], [3.0], [3.5], [4.0]]
    assert gpu.runtime.graph_ids()[0] in ("8", "9")


def test_every_run_of_a_session_with_graphs_is_on_the_thread_that_captured(gpu, affine):
    session = gpu.load(affine, sizes=SIZES, cuda_graphs=True)
    threads = [threading.Thread(target=lambda: ask(session, floats(1))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(gpu.runtime.runs) == 3
    assert {name for name, _ in gpu.loading_runs + gpu.runtime.runs} == {"m:3-graphs_0"}
    session.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("m:3-graphs")]


def test_a_batch_of_another_size_is_run_without_a_graph(gpu, affine):
    session = gpu.load(affine, sizes=SIZES, cuda_graphs=True)
    assert ask(session, floats(1, 2, 3)).tolist() == [[2.5], [3.0], [3.5]]
    assert ask(session, floats(*range(9))).shape == (9, 1)
    assert gpu.runtime.graph_ids() == ["-1", "-1"]


def test_a_session_with_graphs_never_shrinks_the_arena_that_they_use(gpu, affine):
    session = gpu.load(affine, sizes=SIZES, cuda_graphs=True)
    gpu.runtime.run_failures.append(OUT_OF_MEMORY)
    with pytest.raises(ScoringError):
        ask(session, floats(1))
    ask(session, floats(1))
    assert not [options for _, options in gpu.runtime.runs if shrinks(options)]


@pytest.mark.parametrize(
    ("sizes", "shape", "reason"),
    [((), ("batch", 1), "allowed_batch_sizes"), (SIZES, ("batch", "width"), 'input "x" has no fixed size')],
    ids=["no sizes", "free inner size"],
)
def test_graphs_that_cannot_be_are_refused_with_the_reason(gpu, tmp_path, sizes, shape, reason):
    from onnx import TensorProto

    path = model_builders.onnx_identity(tmp_path / "m.onnx", TensorProto.FLOAT, shape)
    with pytest.raises(ScoringError, match=reason) as refusal:
        gpu.load(path, sizes=sizes, cuda_graphs=True)
    assert refusal.value.kind is Kind.PRECONDITION


def test_a_capture_that_fails_frees_what_it_took(gpu, affine):
    gpu.runtime.run_failures.append(RuntimeError("CUDA failure 900: operation not permitted when stream is capturing"))
    with pytest.raises(ScoringError, match="900"):
        gpu.load(affine, sizes=SIZES, cuda_graphs=True)
    assert gpu.cudart.device == {}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("m:3-graphs")]

"""States of models, and which one a request means. The synthetic back end loads for real; there are no sockets."""

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.discovery import BackendPool
from accelserve.backends.probes import synthetic
from accelserve.clock import MonotonicClock
from accelserve.codecs.round_trip import check_round_trip
from accelserve.config import ModelConfig
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef, Priority, ScoreRequest
from accelserve.models.loading import Loader
from accelserve.models.manager import ModelManager
from accelserve.models.resident import VersionLoader
from accelserve.models.servable import LoadedModel
from accelserve.models.watch import PathSource
from accelserve.scoring import Scorer

GOOD = 'behaviour = "double"\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
BAD = 'load_error = "the weights are gone"\n' + GOOD


class Batches:
    """Counts what the scheduler reports."""

    def __init__(self):
        self.seen = []

    def batch_done(self, model, version, device, rows, padded_rows, compute_ns):
        self.seen.append((model, version, device, rows, padded_rows))


def model(tmp_path, name, text=GOOD):
    path = tmp_path / f"{name}.synthetic.toml"
    path.write_text(text)
    return ModelConfig(name, path)


def version_loader(tmp_path, batches=None):
    loader = Loader(
        BackendPool([synthetic()]), FolderArtifactCache(tmp_path / "cache"), tmp_path / "leases", check_round_trip
    )
    return VersionLoader(loader, MonotonicClock(), batches or Batches())


@asynccontextmanager
async def managing(tmp_path, *configs, default="", service="", batches=None, policy=None):
    sources = [PathSource(configs)]
    names = {"default": default, "service": service}
    async with ModelManager(sources, version_loader(tmp_path, batches), policy, **names) as manager:
        async with asyncio.timeout(10):
            await manager.changed(manager.settled)
        yield manager


def refused(kind, call, *args):
    with pytest.raises(ScoringError) as caught:
        call(*args)
    assert caught.value.kind is kind
    return caught.value.message


def test_a_good_model_is_available_and_a_broken_one_ends_alone(tmp_path):
    async def main():
        async with managing(tmp_path, model(tmp_path, "good"), model(tmp_path, "bad", BAD)) as manager:
            assert manager.ready()
            assert manager.ready("good")
            assert not manager.ready("bad")
            assert [s.state for s in manager.statuses(ModelRef("good"))] == ["AVAILABLE"]
            (status,) = manager.statuses(ModelRef("bad"))
            assert (status.state, status.error_code) == ("END", 9)
            assert "the weights are gone" in status.error_message
            message = refused(Kind.NOT_FOUND, manager.resolve, ModelRef("bad"))
            assert message.startswith("Servable not found for request: Latest(bad)")

    asyncio.run(main())


def test_unknown_names_versions_and_labels_are_refused_in_tf_servings_words(tmp_path):
    async def main():
        async with managing(tmp_path, model(tmp_path, "m")) as manager:
            assert manager.resolve(ModelRef("m", 1)).version == 1
            for ref, text in ((ModelRef("nope"), "Latest(nope)"), (ModelRef("m", 99), "Specific(m, 99)")):
                assert refused(Kind.NOT_FOUND, manager.resolve, ref) == f"Servable not found for request: {text}"
            label = ModelRef("m", label="stable")
            assert refused(Kind.INVALID, manager.resolve, label) == "Unrecognized servable version label: stable"
            message = refused(Kind.NOT_FOUND, manager.statuses, ModelRef("nope"))
            assert message == "Could not find any versions of model nope"
            message = refused(Kind.NOT_FOUND, manager.statuses, ModelRef("m", 9))
            assert message == "Could not find version 9 of model m"

    asyncio.run(main())


def test_a_request_without_a_name_goes_to_the_default_else_to_the_only_model(tmp_path):
    async def main():
        one, two = model(tmp_path, "a"), model(tmp_path, "b")
        async with managing(tmp_path, one) as manager:
            assert manager.resolve(ModelRef()).name == "a"
        async with managing(tmp_path, one, two, default="b") as manager:
            assert manager.resolve(ModelRef()).name == "b"
        async with managing(tmp_path, one, two) as manager:
            assert "a, b" in refused(Kind.INVALID, manager.resolve, ModelRef())

    asyncio.run(main())


def test_the_services_name_means_the_default_model_unless_a_model_has_it(tmp_path):
    async def main():
        one, two = model(tmp_path, "a"), model(tmp_path, "b")
        async with managing(tmp_path, one, service="numbers") as manager:
            assert manager.resolve(ModelRef("numbers")).name == "a"
            refused(Kind.NOT_FOUND, manager.resolve, ModelRef("letters"))
        async with managing(tmp_path, one, two, default="b", service="a") as manager:
            assert manager.resolve(ModelRef("a")).name == "a"

    asyncio.run(main())


def test_a_model_that_still_loads_is_unavailable_not_unknown(tmp_path):
    async def main():
        slow = model(tmp_path, "slow", "load_delay_ms = 60000\n" + GOOD)
        async with asyncio.timeout(5), ModelManager([PathSource([slow])], version_loader(tmp_path)) as manager:
            assert not manager.ready()
            refused(Kind.LOADING, manager.resolve, ModelRef("slow"))
        # leaving did not wait for the load

    asyncio.run(main())


def test_a_missing_path_is_not_found(tmp_path):
    async def main():
        async with managing(tmp_path, ModelConfig("m", Path("nowhere.onnx"))) as manager:
            assert manager.first_error().kind is Kind.NOT_FOUND

    asyncio.run(main())


def test_a_model_that_loses_its_device_is_unavailable_and_no_longer_ready(tmp_path):
    async def main():
        losing = model(tmp_path, "losing", "lose_device_after = 8\n" + GOOD)
        async with managing(tmp_path, losing, model(tmp_path, "good")) as manager:
            scorer, servable = Scorer(manager, MonotonicClock()), manager.resolve(ModelRef("losing"))
            request = ScoreRequest({"x": np.ones((1, 2), np.float32)})
            asked = [scorer.score(servable, servable.signature(""), request) for _ in range(20)]
            answers = [await gathered(one) for one in asked]
            assert Kind.DEVICE_LOST in answers
            async with asyncio.timeout(5):
                await manager.changed(lambda: not manager.ready("losing"))
            error = refused(Kind.DEVICE_LOST, manager.resolve, ModelRef("losing"))
            assert error.startswith("model losing is unavailable")
            assert manager.ready("good")

    asyncio.run(main())


def test_a_broken_queue_leaves_no_session_open(tmp_path, monkeypatch):
    closed = []
    monkeypatch.setattr(LoadedModel, "close", lambda self: closed.append(self.artifact.name))
    monkeypatch.setattr("accelserve.models.resident.Scheduler", None)

    async def main():
        async with managing(tmp_path, model(tmp_path, "m")) as manager:
            assert manager.first_error().kind is Kind.INTERNAL

    asyncio.run(main())
    assert closed == ["m"]


def test_leaving_closes_the_session(tmp_path):
    async def main():
        async with managing(tmp_path, model(tmp_path, "m")) as manager:
            servable = manager.resolve(ModelRef("m"))
        assert [s.state for s in manager.statuses(ModelRef("m"))] == ["END"]
        with pytest.raises(ScoringError) as caught:
            servable.scheduler.submit(None)
        assert caught.value.kind is Kind.DRAINING

    asyncio.run(main())


def test_a_score_request_is_bound_batched_counted_and_answered(tmp_path):
    async def main():
        batches = Batches()
        async with managing(tmp_path, model(tmp_path, "m"), batches=batches) as manager:
            servable = manager.resolve(ModelRef("m"))
            scorer = Scorer(manager, MonotonicClock())
            rows = np.arange(6, dtype=np.float32).reshape(3, 2)
            request = ScoreRequest({"x": rows}, priority=Priority.HIGH)
            response = await scorer.score(servable, servable.signature(""), request)
            np.testing.assert_array_equal(response.outputs["y"], rows * 2)
            assert (response.model, response.version, response.device) == ("m", 1, "cpu:0")
            assert response.timing.batch_rows == 3
            assert batches.seen == [("m", 1, "cpu:0", 3, 3)]

    asyncio.run(main())


def test_a_deadline_that_passes_while_the_model_runs_is_answered_on_time(tmp_path):
    async def main():
        slow = model(tmp_path, "slow", "delay_ms = 400\n" + GOOD)
        async with managing(tmp_path, slow) as manager:
            servable, clock = manager.resolve(ModelRef("slow")), MonotonicClock()
            request = ScoreRequest({"x": np.ones((1, 2), np.float32)}, deadline_ns=clock.now_ns() + 30_000_000)
            started_ns = clock.now_ns()
            with pytest.raises(ScoringError) as caught:
                await Scorer(manager, clock).score(servable, servable.signature(""), request)
            assert caught.value.kind is Kind.DEADLINE
            assert clock.now_ns() - started_ns < 300_000_000

    asyncio.run(main())


def test_a_missing_signature_is_a_precondition_in_tf_servings_words(tmp_path):
    async def main():
        async with managing(tmp_path, model(tmp_path, "m")) as manager:
            servable = manager.resolve(ModelRef("m"))
            message = refused(Kind.PRECONDITION, servable.signature, "nope")
            assert message.startswith('Serving signature key "nope" not found.')

    asyncio.run(main())


async def gathered(answer):
    """The kind of error that a request ended with; None for an answer."""
    try:
        await answer
    except ScoringError as error:
        return error.kind
    return None

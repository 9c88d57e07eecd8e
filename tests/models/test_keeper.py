"""Versions brought up and down for real, with the synthetic back end and without sockets."""

import asyncio
import gc
from contextlib import asynccontextmanager

import numpy as np
import pytest

from accelserve.backends.artifact_cache import FolderArtifactCache
from accelserve.backends.base import Capabilities, Device, Inventory, Offer
from accelserve.backends.discovery import BackendPool
from accelserve.backends.probes import synthetic
from accelserve.backends.synthetic.backend import SyntheticBackend
from accelserve.clock import MonotonicClock
from accelserve.codecs.round_trip import check_round_trip
from accelserve.config import ModelConfig
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef, ScoreRequest
from accelserve.models.keeper import KeeperPolicy
from accelserve.models.loading import Loader
from accelserve.models.manager import ModelManager
from accelserve.models.reload import ReloadPolicy
from accelserve.models.resident import VersionLoader
from accelserve.models.servable import LoadedModel
from accelserve.models.watch import PathSource, Seen, Sighting
from accelserve.scoring import Scorer

SPEC = 'behaviour = "{behaviour}"\n{settings}\n[inputs.x]\ndtype = "float32"\nshape = [-1, 2]\noutput = "y"\n'
QUICK = ReloadPolicy(first_s=0.02, most_s=0.1, attempts=3)


class TwoGpus(SyntheticBackend):
    """Two devices that each take two models."""

    gpus = tuple(Device(f"gpu:{number}", DeviceKind.GPU, "made up") for number in range(2))

    def inventory(self):
        return Inventory(self.gpus)

    def capabilities(self, device, options):
        return Capabilities(formats=frozenset({"synthetic"}), models_per_device=2, deterministic=True)


TWO_GPUS = Offer("two", frozenset({"synthetic"}), frozenset({DeviceKind.GPU}), f"{__name__}:TwoGpus")


class Uncounted:
    def batch_done(self, *_):
        pass


def put(base, version, behaviour="echo", settings=""):
    folder = base / f".{version}"
    folder.mkdir(parents=True)
    (folder / "synthetic.toml").write_text(SPEC.format(behaviour=behaviour, settings=settings))
    folder.rename(base / str(version))


@asynccontextmanager
async def keeping(tmp_path, *sources, offers=(), follows="", poll_s=0.02, return_memory=lambda: None, **loading):
    pool = BackendPool([*offers] or [synthetic()])
    loader = Loader(pool, FolderArtifactCache(tmp_path / "cache"), tmp_path / "leases", check_round_trip, **loading)
    versions = VersionLoader(loader, MonotonicClock(), Uncounted(), return_memory)
    policy = KeeperPolicy(poll_s, drain_timeout_s=1.0, reload=QUICK)
    async with asyncio.timeout(20), ModelManager(sources, versions, policy, follows=follows) as manager:
        await manager.changed(manager.settled)
        yield manager


def states(manager, model="m"):
    return {status.version: status.state for status in manager.statuses(ModelRef(model))}


async def until(manager, **wanted):
    """v1="AVAILABLE": wait until these versions of m are in these states."""
    await manager.changed(lambda: all(states(manager).get(int(v[1:])) == state for v, state in wanted.items()))


async def ask(manager, servable=None, value=3.0):
    """(version, answer's factor, device)"""
    servable = servable or manager.resolve(ModelRef("m"))
    request = ScoreRequest({"x": np.full((1, 2), value, np.float32)})
    response = await Scorer(manager, MonotonicClock()).score(servable, servable.signature(""), request)
    return response.version, response.outputs["y"][0, 0].item() / value, response.device


async def lose_device(manager):
    """Ask a model until its device is lost: some of the runs that it has are the self-check's."""
    for _ in range(40):
        (answer,) = await asyncio.gather(ask(manager), return_exceptions=True)
        if isinstance(answer, ScoringError):
            break
    assert answer.kind is Kind.DEVICE_LOST


def path_source(base, **choices):
    return PathSource([ModelConfig("m", base, **choices)])


def test_who_has_found_the_old_version_is_answered_by_it_however_late(tmp_path):
    async def main():
        put(tmp_path / "m", 1)
        async with keeping(tmp_path, path_source(tmp_path / "m")) as manager:
            found = manager.resolve(ModelRef("m"))
            put(tmp_path / "m", 2, "double")
            await until(manager, v1="UNLOADING", v2="AVAILABLE")
            assert [manager.knows(*it) for it in (("m", "1"), ("m", "3"), ("m", ""), ("n", "1"))] == [True] + [
                False
            ] * 3
            assert await ask(manager) == (2, 2.0, "cpu:0")
            assert await ask(manager, found) == (1, 1.0, "cpu:0")
            assert states(manager)[1] == "UNLOADING"
            del found
            gc.collect()
            await until(manager, v1="END")

    asyncio.run(main())


def test_leaving_does_not_wait_for_those_who_hold_a_replaced_version(tmp_path):
    async def main():
        put(tmp_path / "m", 1)
        async with keeping(tmp_path, path_source(tmp_path / "m")) as manager:
            found = manager.resolve(ModelRef("m"))
            put(tmp_path / "m", 2)
            await until(manager, v1="UNLOADING", v2="AVAILABLE")
        assert states(manager) == {1: "END", 2: "END"}
        with pytest.raises(ScoringError) as caught:
            found.scheduler.submit(None)
        assert caught.value.kind is Kind.DRAINING

    asyncio.run(main())


def test_a_second_version_that_does_not_fit_leaves_the_first_and_is_tried_again(tmp_path, caplog):
    async def main():
        base = tmp_path / "m"
        put(base, 1)
        async with keeping(tmp_path, path_source(base)) as manager:
            put(base, 2, "double", 'load_error = "cpu:0 is full"\nload_error_kind = "device_memory"')
            await manager.changed(lambda: caplog.text.count("is tried again in") >= 2)
            assert (await ask(manager))[0] == 1
            assert manager.ready()
            assert "m:1 serves on; version 2 is tried again in" in caplog.text
            (base / "2" / "synthetic.toml").write_text(SPEC.format(behaviour="double", settings=""))
            await until(manager, v1="END", v2="AVAILABLE")

    asyncio.run(main())


def test_a_version_that_the_models_own_file_keeps_from_loading_is_tried_again_when_that_is_mended(tmp_path):
    async def main():
        base = tmp_path / "m"
        put(base, 1)
        async with keeping(tmp_path, path_source(base)) as manager:
            (base / "accelserve.toml").write_text("nonsense = [")
            put(base, 2)
            await until(manager, v1="AVAILABLE", v2="END")
            (base / "accelserve.toml").write_text("[batching]\nmax_batch_size = 4\n")
            await until(manager, v1="END", v2="AVAILABLE")

    asyncio.run(main())


def test_a_version_that_fails_in_every_run_of_its_warm_up_is_warned_of(tmp_path, caplog):
    async def main():
        put(tmp_path / "m", 1, settings="fail_every = 1")
        async with keeping(tmp_path, path_source(tmp_path / "m")) as manager:
            await until(manager, v1="AVAILABLE")
        (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert "m:1 failed in every run before its first request" in warning.getMessage()

    asyncio.run(main())


def test_a_lost_device_is_loaded_again_and_serves_again(tmp_path, caplog):
    async def main():
        base = tmp_path / "m"
        put(base, 1, settings="lose_device_after = 8")
        async with keeping(tmp_path, path_source(base)) as manager:
            await lose_device(manager)
            await manager.changed(lambda: not manager.ready("m"))
            assert not manager.exhausted()
            await until(manager, v1="AVAILABLE")
            assert await ask(manager) == (1, 1.0, "cpu:0")
        assert "model m is lost" in caplog.text
        assert "serves on" not in caplog.text

    asyncio.run(main())


def test_a_version_that_stands_in_for_a_bad_one_is_loaded_again_when_it_loses_its_device(tmp_path):
    async def main():
        base = tmp_path / "m"
        put(base, 1, settings="lose_device_after = 8")
        async with keeping(tmp_path, path_source(base)) as manager:
            put(base, 2, settings='load_error = "bad weights"')
            await until(manager, v1="AVAILABLE", v2="END")
            await lose_device(manager)
            await manager.changed(lambda: not manager.ready("m"))
            assert not manager.exhausted()
            await until(manager, v1="AVAILABLE", v2="END")
            assert await ask(manager) == (1, 1.0, "cpu:0")

    asyncio.run(main())


def test_a_device_that_this_process_cannot_use_again_exhausts_a_followed_server_too(tmp_path):
    async def main():
        base = tmp_path / "m"
        put(base, 1, settings="lose_device_after = 8\nsticky_loss = true")
        async with keeping(tmp_path, path_source(base), follows="store somewhere") as manager:
            await lose_device(manager)
            await manager.changed(manager.exhausted)
            error = manager.first_error()
            assert error.kind is Kind.DEVICE_LOST
            assert "3 failed reloads" in error.message

    asyncio.run(main())


def test_a_device_that_is_lost_for_good_does_not_exhaust_a_server_that_serves_another_model(tmp_path):
    async def main():
        put(tmp_path / "m", 1, settings="lose_device_after = 8\nsticky_loss = true")
        put(tmp_path / "n", 1)
        both = PathSource([ModelConfig("m", tmp_path / "m"), ModelConfig("n", tmp_path / "n")])
        async with keeping(tmp_path, both) as manager:
            await lose_device(manager)
            await manager.changed(lambda: states(manager) == {1: "END"} and "3 failed" in manager.first_error().message)
            assert not manager.exhausted()
            assert manager.ready()
            assert not manager.ready("m")

    asyncio.run(main())


# --- instances and devices


def test_instances_on_several_devices_share_the_work_and_say_who_did_it(tmp_path):
    async def main():
        put(tmp_path / "m", 1, settings="delay_ms = 20.0")
        (tmp_path / "m" / "accelserve.toml").write_text("[batching]\nmax_batch_size = 1\n")
        source = path_source(tmp_path / "m", device="gpu:1,0")
        async with keeping(tmp_path, source, offers=[TWO_GPUS], instances=2) as manager:
            servable = manager.resolve(ModelRef("m"))
            assert [session.device.id for session in servable.model.sessions] == ["gpu:1", "gpu:1", "gpu:0", "gpu:0"]
            assert [device.id for device in servable.model.devices] == ["gpu:1", "gpu:0"]
            answers = await asyncio.gather(*(ask(manager, servable, float(v)) for v in range(1, 9)))
            devices = [device for _, _, device in answers]
            # Each of the four has one at once; who is done first, and so has more of the rest, is chance.
            assert min(devices.count("gpu:0"), devices.count("gpu:1")) >= 2
            assert len(devices) == devices.count("gpu:0") + devices.count("gpu:1") == 8

    asyncio.run(main())


@pytest.mark.parametrize(
    ("device", "instances", "kind", "words"),
    [
        ("gpu:0,3", 1, Kind.DEVICE_MISSING, "there is no gpu:3; this host has gpu:0, gpu:1"),
        ("gpu:0,1", 3, Kind.PRECONDITION, "want 3 instances on gpu:0, which takes 2"),
    ],
)
def test_devices_or_places_that_are_missing_are_named(tmp_path, device, instances, kind, words):
    async def main():
        put(tmp_path / "m", 1)
        source = path_source(tmp_path / "m", device=device, instances=instances)
        async with keeping(tmp_path, source, offers=[TWO_GPUS]) as manager:
            error = manager.first_error()
            assert error.kind is kind
            assert words in error.message
            assert manager.exhausted()

    asyncio.run(main())


def test_every_instance_is_closed_when_one_does_not_load(tmp_path, monkeypatch):
    opened, closed = [], []

    class SecondFails(TwoGpus):
        def load(self, prepared, device, options, lease):
            if opened:
                raise ScoringError(Kind.DEVICE_MEMORY, f"{device.id} is full")
            session = super().load(prepared, device, options, lease)
            opened.append(session)
            session.close = lambda: closed.append(session)
            return session

    monkeypatch.setattr(f"{__name__}.TwoGpus", SecondFails)

    async def main():
        put(tmp_path / "m", 1)
        async with keeping(tmp_path, path_source(tmp_path / "m", device="gpu:0,1"), offers=[TWO_GPUS]) as manager:
            assert manager.first_error().message == "gpu:1 is full"

    asyncio.run(main())
    assert opened == closed != []


# --- a source that comes and goes


class Shelf:
    """A source in memory; remembers who is held."""

    def __init__(self, base):
        self.base = base
        self.names = []
        self.held = []
        self.ever_held = []
        self.broken = False

    def expected(self):
        return ()

    def look(self, quiet):
        if self.broken:
            raise OSError("the disk is away")
        return [Sighting(ModelConfig(name, None), {1: Seen(1, self.base / name / "1")}) for name in self.names]

    def hold(self, name, version):
        self.held.append(f"{name}:{version}")
        self.ever_held.append(f"{name}:{version}")
        return Release(self.held, f"{name}:{version}")


class Release:
    def __init__(self, held, what):
        self.release = lambda: held.remove(what)


def test_models_that_appear_are_served_and_held_and_those_that_vanish_are_let_go(tmp_path):
    async def main():
        shelf = Shelf(tmp_path)
        for name in ("m", "n"):
            put(tmp_path / name, 1)
        async with keeping(tmp_path, shelf, follows="the shelf") as manager:
            assert (manager.ready(), manager.exhausted(), manager.names()) == (False, False, [])
            assert manager.why_not_ready() == "the shelf holds no model yet"
            with pytest.raises(ScoringError) as caught:
                manager.resolve(ModelRef())
            assert (caught.value.kind, caught.value.message) == (Kind.LOADING, "the shelf holds no model yet")
            shelf.names = ["m", "n"]
            await manager.changed(lambda: manager.ready("m") and manager.ready("n"))
            assert sorted(shelf.held) == ["m:1", "n:1"]
            shelf.names = ["n"]
            await manager.changed(lambda: manager.names() == ["n"])
            assert shelf.held == ["n:1"]
            shelf.names = []
            await manager.changed(lambda: manager.names() == [])
            assert not manager.exhausted()
            assert not manager.ready()
        assert shelf.held == []

    asyncio.run(main())


def test_a_source_that_cannot_be_read_leaves_everything_as_it_is_and_is_told_once(tmp_path, caplog):
    async def main():
        shelf = Shelf(tmp_path)
        put(tmp_path / "m", 1)
        shelf.names = ["m"]
        async with keeping(tmp_path, shelf) as manager:
            await until(manager, v1="AVAILABLE")
            shelf.broken, shelf.names = True, []
            await manager.changed(lambda: "the disk is away" in caplog.text)
            assert manager.ready("m")
            shelf.broken, shelf.names = False, ["m"]
        assert caplog.text.count("models cannot be looked up") == 1

    asyncio.run(main())


def test_a_model_that_does_not_load_lets_its_files_go(tmp_path):
    async def main():
        shelf = Shelf(tmp_path)
        put(tmp_path / "m", 1, settings='load_error = "no"')
        shelf.names = ["m"]
        async with keeping(tmp_path, shelf) as manager:
            await until(manager, v1="END")
            assert shelf.held == []

    asyncio.run(main())


def test_memory_is_given_back_after_each_load_and_each_end(tmp_path):
    async def main():
        base, given_back = tmp_path / "m", []
        put(base, 1)
        async with keeping(tmp_path, path_source(base), return_memory=lambda: given_back.append(1)) as manager:
            assert len(given_back) == 1
            put(base, 2, settings='load_error = "no"')
            await until(manager, v2="END")
            assert len(given_back) == 2
            put(base, 3)
            await until(manager, v1="END", v3="AVAILABLE")
            assert len(given_back) == 4

    asyncio.run(main())


def test_a_load_that_nobody_waits_for_any_more_is_closed_again(tmp_path, monkeypatch):
    closed = asyncio.Event()

    async def main():
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(LoadedModel, "close", lambda self: loop.call_soon(closed.set))
        shelf = Shelf(tmp_path)
        put(tmp_path / "m", 1, settings="load_delay_ms = 200.0")
        async with keeping(tmp_path, shelf) as manager:
            shelf.names = ["m"]
            await manager.changed(lambda: "m" in manager.names() and states(manager) == {1: "LOADING"})
        async with asyncio.timeout(5):
            await closed.wait()
        assert (shelf.ever_held, shelf.held) == (["m:1"], [])

    asyncio.run(main())


def test_a_model_that_comes_later_does_not_unsettle_the_server(tmp_path):
    async def main():
        shelf = Shelf(tmp_path)
        put(tmp_path / "m", 1)
        put(tmp_path / "n", 1, settings="load_delay_ms = 60000.0")
        shelf.names = ["m"]
        async with keeping(tmp_path, shelf) as manager:
            await until(manager, v1="AVAILABLE")
            shelf.names = ["m", "n"]
            await manager.changed(lambda: states(manager, "n") == {1: "LOADING"} if "n" in manager.names() else False)
            assert manager.ready()
            assert not manager.ready("n")

    asyncio.run(main())

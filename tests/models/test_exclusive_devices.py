"""Models on a device that one session can have: taken, programmed, given to the next version."""

import asyncio
import threading

import pytest
from test_keeper import ask, keeping, lose_device, path_source, put, states, until

from accelserve.backends.base import Capabilities, Device, DeviceState, Health, Inventory, Offer
from accelserve.backends.lease import acquire_lease
from accelserve.backends.synthetic.backend import SyntheticBackend
from accelserve.config import ModelConfig, VersionPolicy
from accelserve.devices import DeviceKind
from accelserve.errors import ExitCode, Kind, ScoringError
from accelserve.messages import ModelRef
from accelserve.models.gauges import model_gauges
from accelserve.models.watch import PathSource

CARD = Device("fpga:0", DeviceKind.FPGA, "made up", exclusive=True)
ON_CARD = {"device": "fpga"}


class OneCard(SyntheticBackend):
    """A card that takes one model. programmed: a load waits for it; let go unless a test holds it."""

    cards = (CARD,)
    programmed = threading.Event()
    programming = False

    def inventory(self):
        return Inventory(self.cards)

    def capabilities(self, device, options):
        return Capabilities(frozenset({"synthetic"}), max_batch=1, models_per_device=1, deterministic=True)

    def load(self, prepared, device, options, lease):
        type(self).programming = True
        assert self.programmed.wait(20)
        type(self).programming = False
        return super().load(prepared, device, options, lease)

    def health(self, device):
        if self.programming:
            return Health(DeviceState.PROGRAMMING, f"{device.id} is being programmed: 40 s left", 39.2)
        return super().health(device)


class TwoCards(OneCard):
    cards = (CARD, Device("fpga:1", DeviceKind.FPGA, "made up", exclusive=True))


def offer(backend):
    return Offer("card", frozenset({"synthetic"}), frozenset({DeviceKind.FPGA}), f"{__name__}:{backend.__name__}")


@pytest.fixture(autouse=True)
def _programmed_at_once():
    OneCard.programmed.set()
    yield
    OneCard.programmed.set()


def keeping_on_card(tmp_path, *sources, backend=OneCard):
    return keeping(tmp_path, *sources, offers=[offer(backend)])


def refusal(manager, model="m"):
    with pytest.raises(ScoringError) as refused:
        manager.resolve(ModelRef(model))
    return refused.value


def test_while_the_card_is_programmed_requests_are_told_so_and_for_how_long(tmp_path):
    async def main():
        put(tmp_path / "m", 1)
        async with keeping_on_card(tmp_path, path_source(tmp_path / "m", **ON_CARD)) as manager:
            assert manager.device_states() == {"fpga:0": DeviceState.READY}
            OneCard.programmed.clear()
            put(tmp_path / "m", 2)
            await manager.changed(lambda: manager.health("m", 2) is not None)
            error = refusal(manager)
            assert (error.kind, error.retry_after_s) == (Kind.PROGRAMMING, 40)
            assert error.message == "model m is not ready yet: fpga:0 is being programmed: 40 s left"
            told = {tuple(g.labels.values()): g.value for g in model_gauges(manager) if "device_state" in g.name}
            assert told["fpga:0", "programming"] == 1
            assert told["fpga:0", "ready"] == 0
            OneCard.programmed.set()
            await until(manager, v2="AVAILABLE")
            assert manager.health("m", 2) is None
            assert manager.device_states() == {"fpga:0": DeviceState.READY}

    asyncio.run(main())


def test_a_second_model_on_the_card_is_a_conflict_that_names_the_first(tmp_path):
    async def main():
        for name in ("m", "n"):
            put(tmp_path / name, 1)
        source = PathSource([ModelConfig(name, tmp_path / name, **ON_CARD) for name in ("m", "n")])
        async with keeping_on_card(tmp_path, source) as manager:
            served, refused = ("m", "n") if manager.ready("m") else ("n", "m")
            assert manager.ready(served)
            error = refusal(manager, refused)
            assert (error.kind, error.reason) == (Kind.CONFLICT, "device_taken")
            assert f"model {refused} has no device: device fpga:0 is held by {served} (process " in error.message
            assert manager.exhausted() is False

    asyncio.run(main())


def test_a_process_whose_only_model_finds_the_card_taken_ends_with_5_and_one_whose_holder_leaves_serves(tmp_path):
    async def main():
        put(tmp_path / "m", 1)
        other = acquire_lease(tmp_path / "leases", "fpga:0", "somebody")
        async with keeping_on_card(tmp_path, path_source(tmp_path / "m", **ON_CARD)) as manager:
            assert manager.exhausted()
            assert ExitCode.of(manager.first_error().kind) is ExitCode.CONFLICT
            other.release()
            await until(manager, v1="AVAILABLE")

    asyncio.run(main())


def test_a_new_version_gets_the_card_from_the_old_one_and_nobody_who_was_accepted_is_lost(tmp_path):
    async def main():
        put(tmp_path / "m", 1)
        async with keeping_on_card(tmp_path, path_source(tmp_path / "m", **ON_CARD)) as manager:
            asked = [asyncio.create_task(ask(manager)) for _ in range(8)]
            await asyncio.sleep(0)
            put(tmp_path / "m", 2, "double")
            await until(manager, v1="END", v2="AVAILABLE")
            assert {answer[0] for answer in await asyncio.gather(*asked)} == {1}
            assert await ask(manager) == (2, 2.0, "fpga:0")

    asyncio.run(main())


def test_a_new_version_that_fails_before_it_needs_the_card_leaves_the_old_one_serving(tmp_path):
    async def main():
        put(tmp_path / "m", 1)
        async with keeping_on_card(tmp_path, path_source(tmp_path / "m", **ON_CARD)) as manager:
            servable = manager.resolve(ModelRef("m"))
            put(tmp_path / "m", 2, "no such behaviour")
            await until(manager, v2="END")
            assert manager.resolve(ModelRef("m")) is servable

    asyncio.run(main())


def test_a_new_version_that_fails_on_the_card_gives_it_back_and_is_not_tried_again(tmp_path):
    async def main():
        put(tmp_path / "m", 1)
        async with keeping_on_card(tmp_path, path_source(tmp_path / "m", **ON_CARD)) as manager:
            put(tmp_path / "m", 2, settings='load_error = "no"\nload_error_kind = "device_memory"')
            await until(manager, v1="AVAILABLE", v2="END")
            assert await ask(manager) == (1, 1.0, "fpga:0")
            lineup = manager._board.lineups["m"]
            assert lineup.standings[2].reload.at_ns is None
            put(tmp_path / "m", 3, "double")
            await until(manager, v1="END", v3="AVAILABLE")
            assert not any(standing.yielded for standing in lineup.standings.values())

    asyncio.run(main())


def test_of_two_wanted_versions_the_second_stays_a_conflict(tmp_path):
    async def main():
        for version in (1, 2):
            put(tmp_path / "m", version)
        source = path_source(tmp_path / "m", versions=VersionPolicy(latest=2), **ON_CARD)
        async with keeping_on_card(tmp_path, source) as manager:
            await until(manager, v1="END", v2="AVAILABLE")
            for _ in range(3):
                await manager.announce()
                assert states(manager) == {2: "AVAILABLE", 1: states(manager)[1]}
            error = next(s for s in manager.statuses(ModelRef("m")) if s.version == 1)
            assert "held by m" in error.error_message

    asyncio.run(main())


def test_a_lost_card_is_taken_anew(tmp_path):
    async def main():
        put(tmp_path / "m", 1, settings="lose_device_after = 4")
        async with keeping_on_card(tmp_path, path_source(tmp_path / "m", **ON_CARD)) as manager:
            await lose_device(manager)
            await manager.changed(lambda: not manager.ready("m"))
            await until(manager, v1="AVAILABLE")
            assert (await ask(manager))[2] == "fpga:0"

    asyncio.run(main())


def test_where_no_card_is_named_the_first_free_one_is_taken(tmp_path):
    async def main():
        put(tmp_path / "m", 1)
        other = acquire_lease(tmp_path / "leases", "fpga:0", "somebody")
        async with keeping_on_card(tmp_path, path_source(tmp_path / "m", **ON_CARD), backend=TwoCards) as manager:
            assert (await ask(manager))[2] == "fpga:1"
        other.release()

    asyncio.run(main())


def test_a_card_that_is_named_is_waited_for_though_another_is_free(tmp_path):
    async def main():
        put(tmp_path / "m", 1)
        other = acquire_lease(tmp_path / "leases", "fpga:0", "somebody")
        source = path_source(tmp_path / "m", device="fpga:0")
        async with keeping_on_card(tmp_path, source, backend=TwoCards) as manager:
            assert refusal(manager).kind is Kind.CONFLICT
            other.release()
            await until(manager, v1="AVAILABLE")

    asyncio.run(main())

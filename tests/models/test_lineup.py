"""One model's versions: what is done next, and which one a request means."""

from pathlib import Path

import pytest

from accelserve.config import ModelConfig
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef
from accelserve.models.lineup import Lineup
from accelserve.models.reload import ReloadPolicy
from accelserve.models.versions import ModelState
from accelserve.models.watch import Seen, Sighting

S = 1_000_000_000
CONFIG = ModelConfig("m", Path("/models/m"))
GONE = ScoringError(Kind.DEVICE_LOST, "m: gpu:0 fell off the bus")


class Handle:
    """Stands for a Servable, of which a line-up only keeps the reference and looks at its devices."""

    device_ids = frozenset({"fpga:0"})

    def __init__(self, version):
        self.version = version


def lineup(**policy):
    return Lineup(CONFIG, ReloadPolicy(**policy))


def see(models, *versions, stamp="now", whole=True):
    models.see(Sighting(CONFIG, {v: Seen(v, Path(str(v)), stamp, whole) for v in versions}))


def load(models, now_ns=0, fails=None):
    """Load what is next; its version, None when nothing is due."""
    begun = models.begin_load(now_ns)
    if begun is None:
        return None
    standing, _ = begun
    if fails is None:
        standing.serve(Handle(standing.version), now_ns)
    else:
        standing.fail(fails, now_ns, 1.0)
    models.moved()
    return standing.version


def states(models):
    return {status.version: status.state for status in models.statuses()}


def found(models, version=None):
    return models.find(ModelRef("m", version)).version


def refused(models, version=None):
    with pytest.raises(ScoringError) as caught:
        models.find(ModelRef("m", version))
    return caught.value


def test_a_new_version_takes_over_when_it_is_available_and_the_old_one_goes():
    models = lineup()
    see(models, 1)
    assert load(models) == 1
    see(models, 2)
    assert models.begin_unload() == []
    standing, _ = models.begin_load(0)
    assert found(models) == 1
    standing.serve(Handle(2), 0)
    models.moved()
    assert found(models) == 2
    assert [old.version for old in models.begin_unload()] == [1]
    assert states(models) == {2: "AVAILABLE", 1: "UNLOADING"}
    assert refused(models, 1).message == "Servable not found for request: Specific(m, 1)"


def test_a_version_that_fails_leaves_the_old_one_and_is_told():
    models = lineup()
    see(models, 1)
    load(models)
    see(models, 2)
    assert load(models, fails=ScoringError(Kind.PRECONDITION, "no weights")) == 2
    assert models.begin_unload() == []
    assert found(models) == 1
    assert models.state is ModelState.AVAILABLE
    assert states(models) == {2: "END", 1: "AVAILABLE"}
    error = refused(models, 2)
    assert (error.kind, error.reason) == (Kind.NOT_FOUND, "load_failed")
    assert "no weights" in error.message
    assert load(models, 10**6 * S) is None
    see(models, 2, stamp="later")
    assert load(models) == 2


def test_an_old_version_that_stands_in_for_a_bad_one_is_loaded_again_when_it_loses_its_device():
    models = lineup(attempts=2)
    see(models, 1)
    load(models)
    bad = ScoringError(Kind.PRECONDITION, "no weights")
    for version in range(2, 14):  # each takes the place of the one before
        see(models, version)
        assert load(models, fails=bad) == version
    standing = models.standings[1]
    standing.lose(GONE, 0, 1.0)
    standing.state = ModelState.END
    models.moved()
    see(models, 13)
    assert models.has_hope
    assert models.wake_at_ns() == 1 * S
    assert load(models, 1 * S) == 1
    assert models.begin_unload() == []
    assert found(models) == 1
    see(models, 13, stamp="mended")
    assert load(models) == 13
    assert [old.version for old in models.begin_unload()] == [1]


def test_an_old_version_that_lost_its_device_is_not_loaded_again_once_a_wanted_one_serves_or_the_model_is_gone():
    for gone in (False, True):
        models = lineup()
        see(models, 1)
        load(models)
        see(models, 2)
        standing = models.standings[1]
        standing.lose(GONE, 0, 1.0)
        standing.state = ModelState.END
        models.leave() if gone else load(models)
        assert load(models, 10**6 * S) is None
        assert models.wake_at_ns() is None
        assert models.has_hope is False


def test_memory_that_lacks_for_the_second_version_leaves_the_first_and_is_asked_for_again():
    models = lineup()
    see(models, 1)
    load(models)
    see(models, 2)
    load(models, fails=ScoringError(Kind.DEVICE_MEMORY, "gpu:0 is full"))
    assert found(models) == 1
    assert models.wake_at_ns() == 2 * S
    assert load(models, 2 * S - 1) is None
    assert load(models, 2 * S) == 2


def test_while_a_lower_version_comes_the_failure_of_a_higher_one_is_not_the_answer():
    models = lineup()
    see(models, 1, 3)
    load(models, fails=ScoringError(Kind.PRECONDITION, "no weights"))
    error = refused(models)
    assert (error.kind, models.state) == (Kind.LOADING, ModelState.START)
    models.begin_load(0)
    assert (refused(models).kind, models.state) == (Kind.LOADING, ModelState.LOADING)
    assert refused(models, 3).reason == "load_failed"


def test_nobody_is_woken_for_a_retry_that_cannot_begin():
    """A wake-up in the past, with nothing to do, would never end."""
    models = lineup()
    see(models, 1)
    load(models)
    see(models, 2)
    load(models, fails=ScoringError(Kind.DEVICE_MEMORY, "gpu:0 is full"))
    see(models, 2, stamp="being copied", whole=False)
    assert models.wake_at_ns() is None
    see(models, 2)
    assert models.wake_at_ns() == 2 * S
    see(models, 2, 3)
    models.begin_load(1 * S)
    assert models.wake_at_ns() is None


def test_a_lost_device_is_unavailable_until_a_reload_works():
    models = lineup()
    see(models, 1)
    load(models)
    standing = models.standings[1]
    standing.lose(GONE, 100 * S, 1.0)
    models.moved()
    error = refused(models)
    assert (error.kind, error.reason, error.retry_after_s) == (Kind.DEVICE_LOST, "device_lost", 5)
    assert models.has_hope
    assert load(models, 101 * S) is None  # it is still being taken down
    standing.state = ModelState.END
    assert models.wake_at_ns() == 101 * S
    assert load(models, 101 * S, fails=ScoringError(Kind.DEVICE_MISSING, "no driver")) == 1
    error = refused(models)
    assert error.kind is Kind.DEVICE_LOST
    assert "fell off the bus; 1 failed reloads, the last: no driver" in error.message
    assert models.statuses()[0].error_code == 14
    assert load(models, 103 * S) == 1
    assert found(models) == 1
    assert models.statuses()[0].error_code == 0


def test_while_a_lost_version_is_loaded_again_it_is_still_a_lost_device_to_its_clients():
    models = lineup()
    see(models, 1)
    load(models)
    models.standings[1].lose(GONE, 0, 1.0)
    models.standings[1].state = ModelState.END
    models.moved()
    models.begin_load(1 * S)
    assert models.state is ModelState.LOADING
    assert refused(models).kind is Kind.DEVICE_LOST


def test_hope_ends_with_the_last_attempt():
    models = lineup(attempts=1)
    see(models, 1)
    load(models)
    models.standings[1].lose(GONE, 0, 1.0)
    models.standings[1].state = ModelState.END
    assert (models.has_hope, models.has_lost_for_good) == (True, False)
    load(models, 1 * S, fails=GONE)
    assert (models.has_hope, models.has_lost_for_good) == (False, True)


def test_files_that_change_are_a_new_beginning_for_a_lost_version_too():
    models = lineup(attempts=1)
    see(models, 1)
    load(models)
    see(models, 1, stamp=None)  # nobody looks at the files of one that serves
    models.standings[1].lose(GONE, 0, 1.0)
    models.standings[1].state = ModelState.END
    assert load(models, 0) is None
    see(models, 1, stamp="now")
    assert load(models, 0) is None
    see(models, 1, stamp="later")
    assert load(models, 0) == 1


def test_what_is_not_looked_at_yet_is_loading_and_what_is_not_there_is_told_as_version_0():
    models = lineup()
    assert refused(models).kind is Kind.LOADING
    assert refused(models, 3).kind is Kind.LOADING
    assert states(models) == {0: "START"}
    models.see(Sighting(CONFIG, {}, ScoringError(Kind.NOT_FOUND, "no such folder")))
    assert models.settled
    assert states(models) == {0: "END"}
    assert refused(models).message.endswith("it failed to load: no such folder")


def test_a_look_that_finds_nothing_changes_nothing_of_what_serves():
    models = lineup()
    see(models, 1)
    load(models)
    models.see(Sighting(CONFIG, {}, ScoringError(Kind.NOT_FOUND, "no such folder")))
    assert models.begin_unload() == []
    assert found(models) == 1
    see(models, 1)
    assert models.problem is None


def test_a_model_that_its_source_has_no_more_is_unloaded_and_then_over():
    models = lineup()
    see(models, 1)
    load(models)
    models.leave()
    assert not models.is_over
    (standing,) = models.begin_unload()
    assert not models.is_over
    standing.state = ModelState.END
    assert models.is_over
    see(models, 2)
    assert not models.is_over


def test_only_so_many_ended_versions_stay_in_the_status():
    models = lineup()
    for version in range(1, 40):
        see(models, version)
        load(models)
        for old in models.begin_unload():
            old.state = ModelState.END
    see(models, 39)
    assert list(states(models)) == list(range(39, 30, -1))


def test_a_version_that_vanished_before_it_was_loaded_is_forgotten():
    models = lineup()
    see(models, 1)
    load(models)
    see(models, 1, 2, whole=False)
    see(models, 1)
    assert states(models) == {1: "AVAILABLE"}


def test_the_first_version_settles_a_model():
    models = lineup()
    see(models, 1, 2)
    assert not models.settled
    load(models)
    assert models.settled
    assert found(models) == 2


def test_a_version_that_is_not_wanted_makes_room_on_its_device_and_comes_back_if_the_new_one_fails():
    models = lineup()
    see(models, 1)
    load(models)
    see(models, 2)
    standing, _ = models.begin_load(0)
    assert models.make_room("fpga:1") == []
    (leaving,) = models.make_room("fpga:0")
    assert leaving.version == 1
    assert refused(models).kind is Kind.LOADING
    leaving.state = ModelState.END
    standing.took_over = True
    standing.fail(ScoringError(Kind.DEVICE_MEMORY, "full"), 0, 1.0)
    assert load(models) == 1
    assert found(models) == 1
    assert (models.wake_at_ns(), load(models, 10**6 * S)) == (None, None)
    see(models, 2, stamp="later")
    assert load(models) == 2


def test_a_version_that_is_wanted_makes_room_for_nobody():
    models = lineup()
    see(models, 1, 2)
    assert load(models) == 2
    models.begin_load(0)
    assert models.make_room("fpga:0") == []
    assert found(models) == 2


def test_who_made_room_for_a_version_that_serves_does_not_come_back_when_that_loses_its_device():
    models = lineup()
    see(models, 1)
    load(models)
    see(models, 2)
    standing, _ = models.begin_load(0)
    (leaving,) = models.make_room("fpga:0")
    leaving.state = ModelState.END
    standing.serve(Handle(2), 0)
    models.moved()
    standing.lose(GONE, 0, 1.0)
    standing.state = ModelState.END
    models.moved()
    assert load(models, 0) is None
    assert load(models, 10 * S) == 2


def test_a_model_without_a_device_is_a_conflict_that_names_the_holder():
    models = lineup()
    see(models, 1)
    load(models, fails=ScoringError(Kind.CONFLICT, "device fpga:0 is held by n (process 7)", reason="device_taken"))
    error = refused(models)
    assert (error.kind, error.reason) == (Kind.CONFLICT, "device_taken")
    assert error.message == "model m has no device: device fpga:0 is held by n (process 7)"


def test_a_version_whose_device_a_third_got_meanwhile_is_tried_again():
    models = lineup()
    see(models, 1)
    load(models)
    see(models, 2)
    standing, _ = models.begin_load(0)
    (leaving,) = models.make_room("fpga:0")
    leaving.state = ModelState.END
    standing.took_over = True
    standing.fail(ScoringError(Kind.CONFLICT, "device fpga:0 is held by n (process 7)"), 0, 1.0)
    assert load(models, fails=ScoringError(Kind.CONFLICT, "still held")) == 1
    assert load(models, 10 * S) == 2

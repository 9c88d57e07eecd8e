"""One version as it moves through its states."""

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.models.reload import Reload, ReloadPolicy
from accelserve.models.standing import Standing
from accelserve.models.versions import ModelState

GONE = ScoringError(Kind.DEVICE_LOST, "m: gpu:0 fell off the bus")
BROKEN = ScoringError(Kind.PRECONDITION, "m: no graph")
TAKEN = ScoringError(Kind.CONFLICT, "gpu:0 is taken")


def standing() -> Standing:
    return Standing(1, Reload(ReloadPolicy()))


def test_a_version_that_serves_has_no_error():
    version, servable = standing(), object()
    version.fail(BROKEN, 0, 1.0)
    version.serve(servable, 1)
    assert (version.state, version.servable, version.error) == (ModelState.AVAILABLE, servable, None)


def test_a_version_that_lost_its_device_goes_down_and_says_why():
    version = standing()
    version.serve(object(), 0)
    version.lose(GONE, 1, 1.0)
    assert (version.state, version.servable, version.error, version.loss) == (ModelState.UNLOADING, None, GONE, GONE)


def test_one_that_had_served_stays_a_devices_loss_when_it_does_not_come_back():
    version = standing()
    version.serve(object(), 0)
    version.lose(GONE, 1, 1.0)
    version.fail(BROKEN, 2, 1.0)
    assert version.error.kind is Kind.DEVICE_LOST
    assert version.error.message == "m: gpu:0 fell off the bus; 1 failed reloads, the last: m: no graph"


@pytest.mark.parametrize(("error", "tried_again"), [(BROKEN, False), (TAKEN, True)])
def test_one_that_another_made_room_for_is_tried_again_only_if_a_third_has_the_device(error, tried_again):
    version = standing()
    version.took_over = True
    version.fail(error, 0, 1.0)
    assert version.state is ModelState.END
    assert (version.reload.at_ns is not None) is tried_again

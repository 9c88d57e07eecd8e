"""What is said of a service, from what its folder holds."""

import json
import os
import time

import pytest

from accelserve.backends.lease import boot_id
from accelserve.deploy.definition import ServiceDefinition
from accelserve.deploy.registry import Services
from accelserve.deploy.states import Phase, Refused, ReplicaView, ServiceView, State, view_as_json, view_from_json
from accelserve.deploy.status import addresses_of, status_of

NUMBERS = ServiceDefinition("numbers", "m", 1, "/store", replicas=1, http_port=8501, grpc_port=8500)
HEALTHY = ServiceView(State.HEALTHY, "1 of 1 replicas ready", 1, 1, (ReplicaView(0, Phase.READY, 1, 77),))


@pytest.fixture
def folder(tmp_path):
    return Services(tmp_path / "services").create(NUMBERS, lambda made: NUMBERS)


@pytest.fixture
def alive(folder):
    lock = folder.take_lock()
    yield folder
    os.close(lock)


def tell(folder, view=HEALTHY, **about):
    known = {
        "supervisor": 5,
        "boot_id": boot_id(),
        "told_ns": time.monotonic_ns(),
        "since": "2026-11-26T08:00:00+00:00",
    }
    folder.state.write_text(json.dumps({**known, "ended": False, "view": view_as_json(view), **about}))


def test_a_view_survives_json():
    refused = ServiceView(State.HEALTHY, "x", 3, 1, HEALTHY.replicas, Refused(2, "it does not load", 3))
    for view in (HEALTHY, refused):
        assert view_from_json(json.loads(json.dumps(view_as_json(view)))) == view


def test_a_living_supervisor_is_believed(alive):
    tell(alive)
    status = status_of(alive)
    assert (status.view, status.supervisor, status.since) == (HEALTHY, os.getpid(), "2026-11-26T08:00:00+00:00")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"view": {}}', '{"view": {"state": "Sleepy"}}', '{"view": 3}'])
def test_a_state_that_cannot_be_read_hides_no_living_service(alive, content):
    alive.state.write_text(content)
    assert status_of(alive).view.state is State.TRANSITIONING


@pytest.mark.parametrize(
    "changes",
    [
        {"exit_code": "3"},
        {"exit_code": 99},
        {"wanted": None},
        {"reason": 5},
        {"replicas": [{**view_as_json(HEALTHY)["replicas"][0], "pid": "77"}]},
        {"refused": {"revision": 2, "reason": "x", "exit_code": 99}},
        {"colour": "red"},
    ],
)
def test_a_state_that_says_what_cannot_be_is_as_one_that_cannot_be_read(alive, changes):
    tell(alive, told_ns="long ago")
    document = json.loads(alive.state.read_bytes())
    assert "its supervisor stands still or cannot write since" in status_of(alive).view.reason
    alive.state.write_text(json.dumps({**document, "view": {**document["view"], **changes}}))
    assert status_of(alive).view.state is State.TRANSITIONING


def test_a_state_that_is_old_says_so(alive):
    tell(alive)
    reason = status_of(alive, time.monotonic_ns() + 20_000_000_000).view.reason
    assert "told 20 s ago; its supervisor stands still or cannot write since" in reason


def test_a_supervisor_that_is_gone_left_a_failed_service_with_nothing_running(folder):
    tell(folder)
    status = status_of(folder)
    assert (status.view.state, status.view.replicas, status.since) == (State.FAILED, (), "")
    assert status.view.reason.startswith("its supervisor (process 5) was killed, and its replicas with it")


def test_a_machine_that_was_started_again_is_named_as_the_reason(folder):
    tell(folder, boot_id="another")
    assert status_of(folder).view.reason.startswith("the machine has been started since it ran")


def test_what_a_supervisor_said_last_stays(folder):
    tell(folder, ServiceView(State.FAILED, "the weights are gone", 1, 1, exit_code=3), ended=True)
    view = status_of(folder).view
    assert (view.state, view.reason, view.exit_code) == (State.FAILED, "the weights are gone", 3)


def test_without_state_and_supervisor_it_is_failed(folder):
    assert "its state cannot be read" in status_of(folder).view.reason


def test_a_damaged_definition_is_the_reason(folder):
    folder.definition_file.write_text("{")
    status = status_of(folder)
    assert status.definition is None
    assert "definition.json cannot be read" in status.view.reason
    assert status.as_json()["scoring_uri"] is None


def test_addresses_are_those_that_clients_can_use():
    plain = addresses_of(NUMBERS)
    assert plain.scoring_uri == "http://127.0.0.1:8501/api/v1/service/numbers/score"
    assert plain.swagger_uri == "http://127.0.0.1:8501/api/v1/service/numbers/swagger.json"
    assert plain.grpc == "127.0.0.1:8500"

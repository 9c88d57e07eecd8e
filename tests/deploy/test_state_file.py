"""What the supervisor writes down of a service, and what it does when that cannot be written."""

import json
import logging

import pytest

from accelserve.backends.lease import boot_id
from accelserve.deploy.state_file import Told
from accelserve.deploy.states import ServiceView, State, view_from_json

S = 1_000_000_000
HEALTHY = ServiceView(State.HEALTHY, "1 of 1 replicas ready", 1, 1)
UNHEALTHY = ServiceView(State.UNHEALTHY, "0 of 1 replicas ready", 1, 1)


class Hand:
    """A clock that stands where it is put."""

    now = 0

    def now_ns(self) -> int:
        return self.now


@pytest.fixture
def clock():
    return Hand()


@pytest.fixture
def told(tmp_path, clock):
    return Told(tmp_path / "state.json", clock)


def read(tmp_path):
    return json.loads((tmp_path / "state.json").read_bytes())


def test_a_state_is_written_when_it_changes_and_again_after_two_seconds(told, clock, tmp_path):
    told.tell(HEALTHY)
    assert view_from_json(read(tmp_path)["view"]) == HEALTHY
    assert read(tmp_path)["boot_id"] == boot_id()
    clock.now = S
    told.tell(HEALTHY)
    assert read(tmp_path)["told_ns"] == 0
    told.tell(UNHEALTHY)
    assert read(tmp_path)["told_ns"] == S
    clock.now = 3 * S
    told.tell(UNHEALTHY)
    assert read(tmp_path)["told_ns"] == 3 * S


def test_a_state_that_lasts_keeps_the_time_of_its_beginning(told, clock, tmp_path):
    told.tell(HEALTHY)
    began = read(tmp_path)["since"]
    clock.now = 60 * S
    told.tell(ServiceView(State.HEALTHY, "2 of 2 replicas ready", 2, 2))
    assert read(tmp_path)["since"] == began


def test_what_cannot_be_written_is_logged_once_and_written_when_it_can(told, clock, tmp_path, monkeypatch, caplog):
    told.tell(HEALTHY)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk, caplog.at_level(logging.WARNING, "accelserve.deploy"):
        logging.getLogger("accelserve").propagate = True
        disk.setattr("accelserve.deploy.state_file.replace_soon", full)
        for second in range(1, 4):
            clock.now = second * S
            told.tell(UNHEALTHY)
    assert [record.getMessage() for record in caplog.records] == [
        "the state cannot be written: [Errno 28] No space left on device"
    ]
    assert view_from_json(read(tmp_path)["view"]) == HEALTHY
    told.tell(UNHEALTHY)
    assert view_from_json(read(tmp_path)["view"]) == UNHEALTHY


def test_the_last_word_is_marked_as_such(told, tmp_path):
    told.tell(HEALTHY)
    assert read(tmp_path)["ended"] is False
    told.tell(HEALTHY, ended=True)
    assert read(tmp_path)["ended"] is True

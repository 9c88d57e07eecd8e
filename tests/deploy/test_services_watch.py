"""How a wait for a revision ends."""

import pytest

from accelserve.deploy import services
from accelserve.deploy.folder import ServiceFolder
from accelserve.deploy.services import watch
from accelserve.deploy.states import Refused, ServiceView, State
from accelserve.errors import ExitCode


def view(state: State, revision: int, refused: Refused | None = None, exit_code: int = 0) -> ServiceView:
    return ServiceView(state, "why", revision, 1, refused=refused, exit_code=exit_code)


@pytest.fixture
def ends(tmp_path, monkeypatch):
    """The outcome of a wait for revision 2 that sees these, and what was told on the way."""

    def wait(*seen: ServiceView) -> tuple[ExitCode, str, list[State]]:
        told = []
        monkeypatch.setattr(services, "_states", lambda *_: iter(seen))
        outcome = watch(ServiceFolder(tmp_path), 2, 1, lambda view: told.append(view.state))
        return outcome.exit_code, outcome.message, told

    return wait


def test_it_ends_when_the_revision_is_healthy(ends):
    seen = (view(State.HEALTHY, 1), view(State.TRANSITIONING, 2), view(State.HEALTHY, 2))
    assert ends(*seen) == (ExitCode.OK, "", [State.TRANSITIONING, State.HEALTHY])


def test_it_ends_with_the_code_of_what_failed_or_is_refused(ends):
    assert ends(view(State.FAILED, 2, exit_code=3))[:2] == (ExitCode.LOAD_FAILED, "why")
    refused = view(State.HEALTHY, 3, Refused(2, "no weights", 3))
    assert ends(refused)[:2] == (
        ExitCode.LOAD_FAILED,
        "revision 2 is refused: no weights; the service goes on as it was",
    )


@pytest.mark.parametrize("refused", [None, Refused(3, "no weights", 3)])
def test_the_health_of_a_revision_that_came_later_is_not_taken_for_its_own(ends, refused):
    code, message, told = ends(view(State.TRANSITIONING, 2), view(State.HEALTHY, 4, refused))
    assert (code, told) == (ExitCode.CONFLICT, [State.TRANSITIONING])
    assert message == "revision 2 was overtaken by 4, which somebody else has asked for"


def test_a_service_that_is_deleted_meanwhile_is_told_as_such(ends, tmp_path):
    tmp_path.rmdir()
    assert ends(view(State.FAILED, 0))[:2] == (ExitCode.NOT_FOUND, "somebody has deleted it")

"""A process killed between any two calls to the file system leaves the old state of the store or the new one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import accelserve

SCRIPT = Path(__file__).with_name("kill_at_every_step.py")


FEWEST_STEPS = {"register_first": 40, "register_next": 40, "update": 8, "delete": 12}


@pytest.fixture(scope="module", params=FEWEST_STEPS)
def found(request, tmp_path_factory):
    """What the script saw of one change, and the fewest kills that it must have done."""
    seen = killed_everywhere(request.param, tmp_path_factory.mktemp("kills") / "work")
    assert len(seen["kills"]) >= FEWEST_STEPS[request.param]
    return seen


def killed_everywhere(change: str, folder: Path) -> dict:
    environment = {**os.environ, "PYTHONPATH": str(Path(accelserve.__file__).parents[1])}
    command = [sys.executable, str(SCRIPT), change, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_kill_at_any_step_leaves_the_old_state_or_the_new_one(found):
    old, new = found["old"], found["new"]
    states = [kill["after"] for kill in found["kills"]]
    assert old != new
    assert all(state in (old, new) for state in states)
    assert states[0] == old
    turn = states.index(new) if new in states else len(states)
    assert all(state == new for state in states[turn:]), "the change came, went and came again"


def test_the_next_registration_after_a_kill_works_and_sweeps(found):
    for kill in found["kills"]:
        after, then, again = kill["after"], dict(kill["then"]), kill["again"]
        name, _, number = again.partition(":")
        highest = max(
            version for version in (0, 1, 2) if version == 0 or f"{name}:{version}" in (*found["old"], *after)
        )
        assert int(number) == highest + 1, "no number is used twice, and none is lost"
        assert then.pop(again)[:2] == [True, {"stage": "again"}]
        assert then.pop(name) == after.get(name, found["old"].get(name)), "a name's file goes with its versions"
        assert then == {key: seen for key, seen in after.items() if key != name}
        assert kill["left"] == []

"""What `services update` makes of a definition."""

from accelserve.commands.services import _changed
from accelserve.deploy.definition import ServiceDefinition

MODEL = ServiceDefinition("numbers", "m", 1, "/store", replicas=1)
SCRIPT = {"entry_script": "/s/score.py", "source_directory": ""}


def test_a_script_where_there_was_none_opens_the_model_by_itself_unless_it_is_said_otherwise():
    assert _changed(MODEL, SCRIPT).serve_model is False
    assert _changed(MODEL, {**SCRIPT, "serve_model": True}).serve_model is True


def test_another_script_leaves_it_as_it_was():
    both = _changed(MODEL, {**SCRIPT, "serve_model": True})
    assert _changed(both, {**SCRIPT, "entry_script": "/s/other.py"}).serve_model is True
    assert _changed(MODEL, {"replicas": 2}).serve_model is True

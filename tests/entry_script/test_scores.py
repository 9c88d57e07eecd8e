"""`accelserve.score` of an entry script."""

import pytest

import accelserve
from accelserve.entry_script.scores import Scores


def test_a_server_without_models_is_told_of():
    with pytest.raises(RuntimeError, match="has no models; give it some with --model or --store"):
        Scores("", "", 1.0).score("m", {"x": [1]})


def test_no_repr_shows_the_key():
    assert "hidden" not in repr(Scores("unix:/nowhere", "hidden", 1.0))


def test_outside_a_script_it_is_not_there_and_says_where_it_is():
    with pytest.raises(AttributeError, match="for entry scripts that the server runs"):
        accelserve.score  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        accelserve.other  # noqa: B018

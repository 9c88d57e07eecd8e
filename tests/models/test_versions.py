"""Which versions are wanted, what is loaded next and what goes."""

import pytest

from accelserve.config import ALL_VERSIONS, VersionPolicy
from accelserve.errors import Kind, ScoringError
from accelserve.models.versions import Candidate, ModelState, choose, next_load, to_unload

START, LOADING, AVAILABLE, UNLOADING, END = ModelState


@pytest.mark.parametrize(
    ("policy", "chosen"),
    [
        (VersionPolicy(), (10,)),
        (VersionPolicy(latest=2), (10, 3)),
        (VersionPolicy(latest=9), (10, 3, 1)),
        (ALL_VERSIONS, (10, 3, 1)),
        (VersionPolicy(specific=(1, 3)), (3, 1)),
        (VersionPolicy(specific=(1, 7)), (1,)),
    ],
)
def test_the_policy_chooses_the_highest_first(policy, chosen):
    assert choose("m", policy, {1, 3, 10}) == chosen


def test_versions_of_which_none_is_there_are_not_found():
    with pytest.raises(ScoringError, match=r"no version 7, 8; there is: 3, 1") as caught:
        choose("m", VersionPolicy(specific=(7, 8)), {1, 3})
    assert caught.value.kind is Kind.NOT_FOUND


def candidate(version, state=START, *, stamp="now", whole=True, tried=None, failed=False, retry=False):
    return Candidate(version, state, stamp, whole, tried, failed, retry)


def failed(version, *, stamp="now", tried="now", **rest):
    return candidate(version, END, stamp=stamp, tried=tried, failed=True, **rest)


def test_the_highest_version_is_loaded_first_and_one_at_a_time():
    there = [candidate(1), candidate(3), candidate(2)]
    assert next_load(there, loading=False) == 3
    assert next_load(there, loading=True) is None


@pytest.mark.parametrize("state", [LOADING, AVAILABLE, UNLOADING])
def test_what_is_there_or_on_its_way_is_not_loaded(state):
    assert next_load([candidate(1, state)], loading=False) is None


def test_a_version_that_ended_well_is_loaded_when_it_is_wanted_again():
    assert next_load([candidate(1, END, tried="now")], loading=False) == 1


def test_a_version_that_failed_waits_for_other_files_or_its_retry_and_lets_a_lower_one_go_first():
    assert next_load([failed(2), candidate(1)], loading=False) == 1
    assert next_load([failed(2, stamp="later"), candidate(1)], loading=False) == 2
    assert next_load([failed(2, retry=True), candidate(1)], loading=False) == 2


def test_files_that_nobody_looked_at_have_not_changed():
    assert next_load([failed(2, stamp=None)], loading=False) is None


def test_a_version_that_is_being_written_is_waited_for():
    assert next_load([candidate(1, whole=False)], loading=False) is None
    assert next_load([failed(1, stamp="later", whole=False)], loading=False) is None


@pytest.mark.parametrize(
    ("available", "wanted", "leaving"),
    [
        ([1], [2], ()),  # nothing replaces it yet
        ([1, 2], [2], (1,)),
        ([1, 2, 3], [2], (1, 3)),
        ([1, 2], [3], (1,)),  # the best of those that should go stays until then
        ([1, 2], [], (1, 2)),
        ([1, 2], [1, 2, 3], ()),
        ([], [1], ()),
    ],
)
def test_an_old_version_goes_only_when_a_wanted_one_serves_or_none_is_wanted(available, wanted, leaving):
    assert to_unload(available, wanted) == leaving

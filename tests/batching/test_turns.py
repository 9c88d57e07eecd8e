"""Whose turn it is among several groups."""

from collections import OrderedDict

from accelserve.batching.pending import Group, Pending
from accelserve.batching.turns import Turns
from accelserve.messages import Priority

FULL = 8


def group_of(key, *orders, priority=Priority.NORMAL, rows=1, waiting=0) -> Group[Pending]:
    """A group whose items came as the `orders`-th of all."""
    group: Group[Pending] = Group(key)
    lane = group.lanes[priority] = OrderedDict()
    for order in orders:
        item = Pending(key, rows, 0, 0, priority=priority)
        item.order = order
        lane[item] = None
        group.rows += rows
    group.waiting = waiting
    return group


def turns_of(*groups):
    turns: Turns[Pending] = Turns()
    for group in groups:
        turns.enter(group, FULL)
    return turns


def test_the_group_whose_first_item_came_first_is_the_first():
    early, late = group_of("early", 1), group_of("late", 2)
    assert turns_of(late, early).first(FULL) is early


def test_a_more_urgent_item_goes_before_an_earlier_one():
    early, urgent = group_of("early", 1), group_of("urgent", 2, priority=Priority.HIGH)
    turns = turns_of(early, urgent)
    assert turns.first(FULL) is urgent
    turns.drop(urgent)
    assert turns.first(FULL) is early


def test_a_group_all_of_which_waits_for_company_has_no_turn_until_it_is_full():
    waiting = group_of("waiting", 1, 2, waiting=2)
    turns = turns_of(waiting)
    assert turns.first(FULL) is None
    turns.enter(waiting, 2)
    assert turns.first(2) is waiting


def test_a_group_that_became_less_urgent_is_found_where_it_belongs():
    changed, other = group_of("changed", 1, 3), group_of("other", 2)
    turns = turns_of(changed, other)
    changed.lanes[Priority.NORMAL].popitem(last=False)
    assert turns.first(FULL) is other
    turns.drop(other)
    assert turns.first(FULL) is changed


def test_a_group_that_may_leave_no_more_is_forgotten():
    group = group_of("a", 1)
    turns = turns_of(group)
    group.waiting = 1
    assert turns.first(FULL) is None
    assert turns.held == 0


def test_entering_again_changes_nothing():
    group = group_of("a", 1)
    turns = turns_of(group, group)
    turns.drop(group)
    turns.drop(group)
    assert (turns.first(FULL), turns.held) == (None, 0)

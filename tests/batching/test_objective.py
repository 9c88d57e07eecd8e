"""Batch size and delay for a latency objective: single choices, and goodput beside static policies."""

from itertools import pairwise

import pytest
from simulated_server import MS, S, Simulation, flat, linear, noisy, poisson, steps

from accelserve.batching.objective import BatchChoice
from accelserve.batching.policy import BatchPolicy

OBJECTIVE_MS = 50


def chosen(curve, objective_ms, *, lanes=1, seen=32, sizes=(), spread=1.0):
    choice = BatchChoice(objective_ms * MS, 32, sizes, lanes)
    choice.choose([0, *(int(curve(rows)) for rows in range(1, 33))], spread, seen, 0)
    return choice.most_rows


def test_before_anything_was_learned_the_limit_is_the_models_own():
    choice = BatchChoice(50 * MS, 32, (), 1)
    choice.choose([], 1.0, 0, 0)
    assert (choice.most_rows, choice.delay_ns) == (32, 0)


def test_waiting_for_one_batch_and_then_for_the_own_fits_the_objective():
    rows = chosen(linear(10, 5), 100)
    assert 40 * MS < linear(10, 5)(rows) <= 50 * MS


def test_where_larger_batches_bring_nothing_small_ones_are_taken():
    assert chosen(linear(0, 1), 100) == 1


def test_a_batch_size_lies_on_the_edge_of_a_step():
    assert chosen(steps(10, 8), 50) == 8


def test_several_lanes_leave_more_time_for_each_run():
    assert chosen(linear(10, 5), 100, lanes=4) > chosen(linear(10, 5), 100)


def test_runs_that_spread_leave_less_time():
    assert chosen(linear(10, 5), 100, spread=1.5) < chosen(linear(10, 5), 100)


def test_much_more_throughput_is_worth_refusing_who_comes_early_in_a_run():
    assert chosen(flat(30), 50) == 32


def test_an_objective_that_no_run_meets_takes_the_quickest_run():
    assert chosen(linear(60, 1), 50) == 1


def test_only_allowed_sizes_are_chosen():
    assert chosen(linear(10, 5), 100, sizes=(1, 4, 16, 32)) == 4


def test_nothing_is_believed_of_sizes_far_from_those_seen():
    assert chosen(flat(10), 50, seen=4) == 8


def windows(choice, rates_per_s, *, rows=4, first_ns=0):
    """A second of busy runs at each rate; the delay after each."""
    now, delays = first_ns, []
    for rate in rates_per_s:
        for _ in range(100):
            now += 10 * MS
            choice.ran(rows * rate // 100, 10 * MS, now)
        choice.choose([0] + [10 * MS] * 32, 1.0, 32, now)
        delays.append(choice.delay_ns)
    return delays


def test_a_delay_that_gives_more_stays():
    assert windows(BatchChoice(50 * MS, 32, (), 1), [100, 180, 180, 180]) == [2_500_000] * 4


def test_a_delay_that_gives_nothing_goes_and_is_tried_more_and_more_seldom():
    choice = BatchChoice(50 * MS, 32, (), 1)
    tried = [number for number, delay in enumerate(windows(choice, [100] * 60)) if delay]
    gaps = [later - earlier for earlier, later in pairwise(tried)]
    assert gaps == sorted(gaps)
    assert gaps[-1] > gaps[0]


def test_a_delay_goes_at_once_when_the_load_goes():
    choice = BatchChoice(50 * MS, 32, (), 1)
    assert windows(choice, [100, 180, 180])[-1] > 0
    assert windows(choice, [25], first_ns=3 * S) == [0]


def test_batches_that_fill_have_no_delay():
    assert windows(BatchChoice(50 * MS, 32, (), 1), [100] * 5, rows=32) == [0] * 5


def good_within(policy, curve, load, refuses=True):
    """Answers within the objective per second, after the first second. load: open loop per second, or clients."""
    server = Simulation(policy, curve, 1, refuses)
    if isinstance(load, int):
        server.run_clients(load, MS, 4 * S)
    else:
        server.run(poisson(load, 3 * S))
    until_ns = 4 * S if isinstance(load, int) else 3 * S
    good = [a for a in server.arrivals if a.ended == "answered" and a.ended_ns - a.arrived_ns <= OBJECTIVE_MS * MS]
    return sum(S <= a.ended_ns < until_ns for a in good) / (until_ns - S) * S


def curves():
    return {
        "flat": flat(20),
        "linear": linear(1, 1),
        "steep": linear(5, 2.8),
        "steps": steps(10, 8),
        "noisy": noisy(flat(20), 0.1),
    }


@pytest.mark.parametrize(
    ("name", "load"),
    [
        *((name, load) for name in ("flat", "linear", "steep", "noisy") for load in (4, 64)),
        ("flat", 1_100.0),
        ("linear", 650.0),
        ("steep", 220.0),
        ("steps", 560.0),
        ("noisy", 1_000.0),
    ],
)
def test_goodput_is_nearly_that_of_the_best_static_policy_or_above(name, load):
    statics = [BatchPolicy(max_batch_size=most) for most in (1, 4, 8, 16, 32)]
    best = max(good_within(policy, curves()[name], load, refuses=False) for policy in statics)
    assert good_within(BatchPolicy(latency_slo_ns=OBJECTIVE_MS * MS), curves()[name], load) >= 0.85 * best


@pytest.mark.parametrize(
    ("name", "capacity"), [("flat", 1_600), ("linear", 960), ("steep", 290), ("steps", 800), ("noisy", 1_600)]
)
def test_at_three_times_capacity_the_objective_is_met_where_no_static_policy_meets_it(name, capacity):
    assert good_within(BatchPolicy(latency_slo_ns=OBJECTIVE_MS * MS), curves()[name], 3.0 * capacity) > 0.85 * capacity
    for most in (8, 32):
        assert good_within(BatchPolicy(max_batch_size=most), curves()[name], 3.0 * capacity, refuses=False) < 0.1


def test_clients_that_ask_again_ride_together_after_a_while():
    without = good_within(BatchPolicy(), flat(20), 16, refuses=False)
    assert good_within(BatchPolicy(latency_slo_ns=OBJECTIVE_MS * MS), flat(20), 16) > 1.4 * without

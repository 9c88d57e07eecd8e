"""How long runs take, learned: what is believed after which runs."""

import random

import pytest

from accelserve.batching.latency import LatencyModel

MS = 1_000_000
S = 1_000_000_000


def learned(runs, most=32, sizes=()):
    """runs: (rows, ms), a second apart."""
    model = LatencyModel(most, sizes)
    for number, (rows, ms) in enumerate(runs):
        model.observe(rows, int(ms * MS), number * 10 * MS)
    return model


def typical(model, rows):
    return model.run_ns[rows] / MS


def test_a_model_that_never_ran_has_no_times():
    model = LatencyModel(32)
    assert model.run_ns == []
    assert model.sizes() == []


def test_the_first_run_is_believed():
    assert typical(learned([(8, 20)]), 8) == pytest.approx(20)


def test_every_size_up_to_the_largest_batch_has_a_time():
    assert len(learned([(1, 1)], most=100).run_ns) == 101


def test_between_sizes_seen_the_time_lies_on_a_straight_line():
    model = learned([(4, 10), (16, 34)])
    assert typical(model, 10) == pytest.approx(22, rel=0.01)


def test_fewer_rows_than_ever_seen_are_hoped_to_take_less_in_proportion():
    assert typical(learned([(32, 64)]), 8) == pytest.approx(16, rel=0.01)


def test_more_rows_than_ever_seen_are_hoped_to_take_what_the_line_says():
    assert typical(learned([(1, 10)]), 32) == pytest.approx(10)
    assert typical(learned([(1, 10), (8, 24), (16, 40)]), 32) == pytest.approx(72, rel=0.01)


def test_rows_that_are_padded_take_the_time_of_the_size_that_runs():
    model = learned([(1, 5), (8, 20), (32, 60)], sizes=(1, 8, 32))
    assert typical(model, 1) == pytest.approx(5)
    assert [typical(model, rows) for rows in (2, 8)] == pytest.approx([20, 20])
    assert [typical(model, rows) for rows in (9, 32)] == pytest.approx([60, 60])


def test_cold_first_runs_do_not_count():
    assert typical(learned([(1, 200), (1, 21), (1, 20)]), 1) == pytest.approx(20)


def test_the_first_run_of_a_size_between_others_counts_at_most_twice_what_they_say():
    assert typical(learned([(4, 10), (16, 34), (10, 500)]), 10) == pytest.approx(34)  # and no more than more rows take
    assert typical(learned([(4, 10), (32, 66), (10, 500)]), 10) == pytest.approx(44)


def test_more_rows_never_take_less():
    model = learned([(1, 50), (8, 20), (32, 40)])
    assert model.run_ns[1:] == sorted(model.run_ns[1:])
    assert typical(model, 1) == pytest.approx(20)


def test_batches_from_a_size_on_are_worthwhile():
    assert learned([(1, 20), (32, 20)]).worthwhile == 24
    assert learned([(1, 10), (32, 320)]).worthwhile == 1


def test_one_outlier_moves_little():
    model = learned([(8, 20)] * 50)
    model.observe(8, 2_000 * MS, 60 * S)
    assert typical(model, 8) < 24


def test_outliers_now_and_then_do_not_add_up():
    model = learned(([(8, 20)] * 20 + [(8, 400)]) * 10)
    assert typical(model, 8) < 24


@pytest.mark.parametrize("factor", [0.1, 0.4, 1.5, 3, 10])
def test_a_change_of_speed_is_believed_within_twenty_runs(factor):
    model = learned([(8, 20)] * 50)
    for number in range(20):
        model.observe(8, int(20 * factor * MS), 61 * S + number)
    assert typical(model, 8) == pytest.approx(20 * factor, rel=0.1)


def test_a_change_of_speed_seen_at_one_size_is_believed_of_the_others():
    model = learned([(4, 10), (32, 40)] * 20)
    for number in range(20):
        model.observe(32, 120 * MS, 61 * S + number)
    assert typical(model, 4) == pytest.approx(30, rel=0.35)


def test_a_slow_model_is_learned_from_few_runs():
    model = learned([(1, 2_000)] * 5)
    for number in range(6):
        model.observe(1, 3_000 * MS, (61 + number) * S)
    assert typical(model, 1) == pytest.approx(3_000, rel=0.05)


def test_steady_runs_have_no_spread_and_noisy_ones_have():
    chance = random.Random(7)
    steady = learned([(8, 20)] * 100)
    noisy = learned([(8, chance.gauss(20, 4)) for _ in range(400)])
    assert steady.spread == pytest.approx(1.04, abs=0.01)
    assert typical(noisy, 8) == pytest.approx(20, rel=0.15)
    assert 1.2 < noisy.spread < 1.8


def test_noise_at_every_size_leaves_the_curve_standing():
    chance = random.Random(3)
    model = learned([(rows, (5 + rows) * chance.gauss(1, 0.1)) for rows in chance.choices(range(1, 33), k=2_000)])
    assert [typical(model, rows) / (5 + rows) for rows in (1, 8, 16, 24, 32)] == pytest.approx([1] * 5, rel=0.2)


def test_without_runs_the_times_fade_until_something_may_run_again():
    model = learned([(1, 400)] * 5)
    model.fade(1 * S)
    assert typical(model, 1) == pytest.approx(280)
    model.fade(1 * S + 1)
    assert typical(model, 1) == pytest.approx(280)


def test_what_was_right_before_it_faded_is_believed_again_and_for_longer():
    model = learned([(1, 400)] * 5)
    model.fade(1 * S)
    model.observe(1, 400 * MS, 2 * S)
    assert typical(model, 1) == pytest.approx(400)
    model.fade(2 * S + 900 * MS)
    assert typical(model, 1) == pytest.approx(400)
    model.fade(3 * S + 1)
    assert typical(model, 1) == pytest.approx(280)


def test_what_was_wrong_before_it_faded_is_learned_anew():
    model = learned([(1, 400)] * 5)
    for second in (1, 2, 3, 4):
        model.fade(second * S)
    for number in range(20):
        model.observe(1, 40 * MS, 5 * S + number)
    assert typical(model, 1) == pytest.approx(40, rel=0.1)


def test_sizes_tells_what_was_seen():
    model = learned([(1, 10), (8, 20)])
    assert model.sizes() == [(1, 10 * MS), (8, 20 * MS)]


@pytest.mark.parametrize("slow", [3, 10, 30])
def test_bursts_of_slow_runs_that_come_and_go_do_not_carry_away_what_is_believed(slow):
    chance = random.Random(5)
    model = learned([(32, 1)] * 5)
    for number in range(4_000):
        rows = chance.randint(1, 16)
        ms = 0.1 * chance.lognormvariate(0, 0.2) * (slow if number % 20 < 5 else 1)
        model.observe(rows, int(ms * MS), number * MS)
    assert max(model.run_ns) <= 4.2 * MS
    assert model.run_ns[16] <= 0.2 * slow * MS

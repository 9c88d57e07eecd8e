"""Who is let in: single decisions, and goodput in simulated time."""

import pytest
from simulated_server import MISSED, MS, S, Simulation, capacity_per_s, flat, linear, noisy, poisson, steps

from accelserve.batching.admission import Admission, retry_after_s
from accelserve.batching.policy import BatchPolicy
from accelserve.errors import Kind, ScoringError

NOW = 1_000 * S


def knowing(ms=20, lanes=1, most=32, slo_ms=None):
    """Has seen runs of every size take `ms`."""
    policy = BatchPolicy(max_batch_size=most, latency_slo_ns=slo_ms and slo_ms * MS)
    admission = Admission(policy, lanes, "resnet:1")
    for number in range(20):
        for rows in (1, most):
            admission.latency.observe(rows, ms * MS, NOW - (20 - number) * MS)
    return admission


def refused(admission, *, left_ms, rows=1, ahead=0, now=NOW):
    with pytest.raises(ScoringError) as caught:
        admission.check(rows, ahead, None, None if left_ms is None else now + left_ms * MS, now)
    return caught.value


# -- one decision ----------------------------------------------------------------------------------------------------


def test_a_model_that_never_ran_lets_everything_in():
    Admission(BatchPolicy(), 1).check(1, 4_000, None, NOW + 1, NOW)


def test_a_request_without_deadline_at_a_model_without_objective_is_let_in():
    knowing().check(1, 4_000, None, None, NOW)


def test_an_idle_server_lets_in_what_a_run_alone_makes():
    knowing(ms=20).check(1, 0, None, NOW + 20 * MS, NOW)


def ran(admission, rows, ms, at_ns):
    admission.finished(admission.started(rows, 0, at_ns), rows, 0, at_ns + ms * MS)
    return at_ns + ms * MS


def test_one_cold_run_refuses_nobody_on_an_idle_server():
    admission = Admission(BatchPolicy(), 1)
    admission.check(1, 0, None, NOW + 100 * MS, ran(admission, 1, 2_000, NOW - 2_000 * MS))


@pytest.mark.parametrize("cold_runs", [1, 3])
def test_a_size_that_was_cold_is_not_kept_away_by_those_that_go_on_running(cold_runs):
    admission, now = Admission(BatchPolicy(), 1), NOW
    for _ in range(20):
        now = ran(admission, 1, 5, now)
    for _ in range(cold_runs):
        now = ran(admission, 8, 2_000, now)
    for _ in range(10 * 65):
        now = ran(admission, 1, 5, now + 95 * MS)
    admission.check(4, 0, None, now + 100 * MS, now)
    admission.check(8, 0, None, now + 100 * MS, now)


def test_a_large_request_is_not_judged_by_one_cold_run():
    admission = Admission(BatchPolicy(max_batch_size=32), 1)
    now = ran(admission, 1, 2_000, NOW)
    admission.check(1_000, 0, None, now + 100 * MS, now)


def test_a_cold_first_batch_does_not_cut_the_next_ones():
    admission, now = Admission(BatchPolicy(), 1), NOW
    for _ in range(20):
        now = ran(admission, 1, 5, now)
    ran(admission, 8, 2_000, now)
    assert admission.latency.run_ns[8] <= 80 * MS


def test_a_size_known_to_take_longer_is_refused_though_others_are_quicker():
    admission, now = Admission(BatchPolicy(), 1), NOW
    for rows, ms in ((1, 5), (8, 40)) * 4:
        now = ran(admission, rows, ms, now)
    admission.check(7, 0, None, now + 6 * MS, now)  # nobody knows
    assert refused(admission, rows=8, left_ms=30, now=now).reason == "deadline_too_short"


def test_a_deadline_shorter_than_a_run_is_refused_for_that():
    error = refused(knowing(ms=20), left_ms=19)
    assert (error.kind, error.reason, error.retry_after_s) == (Kind.OVERLOADED, "deadline_too_short", 1)
    assert error.message == (
        "resnet:1 cannot meet the deadline: an answer takes 20.0 ms now, of which 20.0 ms are the run, "
        "and 19.0 ms are left"
    )


def test_a_run_on_its_way_is_waited_for():
    admission = knowing(ms=20)
    admission.started(1, 0, NOW - 5 * MS)
    assert admission.estimate_ns(1, 0, None, NOW) == pytest.approx(35 * MS, rel=0.05)


def test_each_full_batch_ahead_takes_a_run():
    admission = knowing(ms=20)
    admission.started(32, 70, NOW)
    assert admission.estimate_ns(1, 31, None, NOW) == pytest.approx(40 * MS, rel=0.05)
    assert admission.estimate_ns(1, 32, None, NOW) == pytest.approx(60 * MS, rel=0.05)
    assert admission.estimate_ns(1, 70, None, NOW) == pytest.approx(80 * MS, rel=0.05)


def test_who_makes_it_by_far_is_let_in_by_a_shorter_way_while_runs_are_on_time():
    admission = knowing(ms=20)
    assert not admission.is_sure(1, S, NOW)  # nothing ran through it
    admission.finished(admission.started(32, 0, NOW - 20 * MS), 32, 0, NOW)
    admission.started(32, 320, NOW)
    assert admission.is_sure(320, 290 * MS, NOW)
    assert not admission.is_sure(320, 250 * MS, NOW)
    assert not admission.is_sure(320, 290 * MS, NOW + 300 * MS)  # the run should have ended long ago


def test_a_wait_that_is_too_long_is_refused_with_the_estimate():
    admission = knowing(ms=20)
    admission.started(32, 320, NOW)
    error = refused(admission, left_ms=100, ahead=320)
    assert (error.kind, error.reason, error.retry_after_s) == (Kind.OVERLOADED, "wait_too_long", 1)
    assert "an answer takes 249." in error.message


def test_lanes_share_what_is_ahead():
    admission = knowing(ms=20, lanes=2)
    admission.started(32, 0, NOW)
    admission.started(32, 64, NOW - 10 * MS)
    waits = [admission.estimate_ns(1, ahead, None, NOW) / MS for ahead in (0, 32, 64, 96)]
    assert waits == pytest.approx([30, 40, 50, 60], rel=0.05)


def test_an_idle_lane_is_used_though_another_is_busy():
    admission = knowing(ms=20, lanes=2)
    admission.started(32, 0, NOW)
    admission.check(1, 0, None, NOW + 20 * MS, NOW)


def test_a_request_larger_than_a_batch_takes_several_runs():
    assert knowing(ms=20).estimate_ns(100, 0, None, NOW) == pytest.approx(80 * MS, rel=0.05)


def test_a_run_that_is_late_already_is_expected_to_be_later_the_older_it_is():
    admission = knowing(ms=20)
    admission.started(1, 0, NOW)
    assert admission.estimate_ns(1, 0, None, NOW + 40 * MS) < admission.estimate_ns(1, 0, None, NOW + 400 * MS)


def test_batches_that_do_not_fill_are_counted_as_they_are():
    admission = knowing(ms=20)
    for _ in range(60):  # each of twenty rows, so that only one fits
        admission.finished(admission.started(20, 100, NOW), 20, 0, NOW + 20 * MS)
    assert admission.estimate_ns(20, 40, None, NOW + 20 * MS) == pytest.approx(60 * MS, rel=0.05)


def test_a_failed_batch_teaches_nothing():
    admission = knowing(ms=20)
    admission.finished(admission.started(1, 0, NOW), 0, 0, NOW + S)
    assert admission.estimate_ns(1, 0, None, NOW + S) == pytest.approx(20 * MS)


def test_a_miss_widens_the_margin_for_waits_and_runs_in_time_narrow_it_after_a_while():
    admission = knowing(ms=20)
    before = admission.estimate_ns(1, 64, None, NOW)
    admission.missed(NOW, NOW + 20 * MS)
    widened = admission.estimate_ns(1, 64, None, NOW)
    assert widened == pytest.approx(before + 4 * MS, rel=0.05)
    for second in (1, 7):
        for _ in range(40):
            at = NOW + second * S
            admission.finished(admission.started(32, 0, at), 32, 0, at + 20 * MS)
        assert admission.estimate_ns(1, 64, None, NOW) == pytest.approx(widened if second == 1 else before, rel=0.05)


def test_those_let_in_before_the_margin_was_widened_do_not_widen_it_again():
    admission = knowing(ms=20)
    admission.missed(NOW, NOW + 20 * MS)
    once = admission.estimate_ns(1, 64, None, NOW)
    admission.missed(NOW + 19 * MS, NOW + 30 * MS)
    assert admission.estimate_ns(1, 64, None, NOW) == once
    admission.missed(NOW + 21 * MS, NOW + 50 * MS)
    assert admission.estimate_ns(1, 64, None, NOW) > once


def test_while_batches_are_large_nobody_is_let_in_who_would_have_them_cut_small():
    admission = Admission(BatchPolicy(), 1)
    for rows in (1, 8, 16, 24, 32):
        for _ in range(5):
            admission.latency.observe(rows, (10 + 2 * rows) * MS, NOW)
    admission.finished(admission.started(1, 0, NOW), 0, 0, NOW)
    admission.started(1, 0, NOW)
    alone = admission.estimate_ns(1, 0, None, NOW)
    admission.finished(admission.started(32, 0, NOW), 0, 0, NOW)
    assert admission.estimate_ns(1, 0, None, NOW) > alone + 10 * MS


def test_who_would_make_the_first_one_late_is_expected_in_the_batch_after():
    admission = Admission(BatchPolicy(), 1)
    for rows in (1, 32):
        admission.latency.observe(rows, (10 + 2 * rows) * MS, NOW)
    admission.started(1, 0, NOW)
    with_all = admission.estimate_ns(1, 10, NOW + 46 * MS, NOW)  # 12 for the run before, 32 for eleven rows
    assert admission.estimate_ns(1, 10, NOW + 43 * MS, NOW) == pytest.approx(with_all + 12 * MS, rel=0.2)


def test_a_belief_that_refuses_everybody_fades():
    admission = knowing(ms=400)
    for _ in range(5):
        refused(admission, left_ms=100, now=NOW + 10 * S)  # fades once: nothing is measured by asking
    for second in range(11, 14):
        refused(admission, left_ms=100, now=NOW + second * S)
    admission.check(1, 0, None, NOW + 15 * S + 100 * MS, NOW + 15 * S)


def test_the_objective_bounds_who_has_no_deadline():
    admission = knowing(ms=20, slo_ms=50)
    admission.started(32, 64, NOW)
    admission.check(1, 0, None, None, NOW)
    assert refused(admission, left_ms=None, ahead=64).reason == "slo"
    admission.check(1, 64, None, NOW + S, NOW)


def test_an_instance_that_is_lost_leaves_less_time_for_each_run():
    admission = Admission(BatchPolicy(latency_slo_ns=100 * MS), 4)

    def batch_size():
        admission.finished(admission.started(32, 0, NOW), 32, 0, NOW + 170 * MS)
        return admission.most_rows

    for _ in range(9):
        for rows in (1, 8, 16, 24, 32):
            admission.latency.observe(rows, (10 + 5 * rows) * MS, NOW)
    with_four = batch_size()
    admission.lanes = 1
    assert batch_size() < with_four


def test_who_waited_in_vain_is_told_so():
    error = knowing(ms=20).given_up(NOW + 15 * MS, NOW)
    assert (error.kind, error.reason, error.retry_after_s) == (Kind.OVERLOADED, "wait_too_long", 1)
    assert "a run takes 20.0 ms, and 15.0 ms are left" in error.message


def test_retry_after_is_whole_seconds_and_at_least_one():
    assert [retry_after_s(ns) for ns in (-1, 1, S, S + 1, 10 * S)] == [1, 1, 1, 2, 10]


# -- goodput ---------------------------------------------------------------------------------------------------------

CURVES = {
    "flat": flat(20),
    "nearly half the deadline": flat(45),
    "more than half of it": flat(60),
    "linear": linear(1, 1),
    "linear up to the deadline": linear(5, 2.8),
    "steps": steps(20, 8),
    "noisy": noisy(flat(20), 0.1),
    "very noisy": noisy(linear(5, 1), 0.2),
}
HARD = ("linear up to the deadline", "very noisy")  # a full batch takes nearly all the time there is, or may do
CAPACITY = {"noisy": 1_600, "very noisy": 32 / 0.037}  # a noisy curve has none of its own


def good_and_missed(name, times, lanes=1, most=32, refuses=True):
    """Goodput as a share of capacity, and the share of admitted requests that missed, after the first second."""
    policy, curve = BatchPolicy(max_batch_size=most), CURVES[name]
    capacity = CAPACITY.get(name) or capacity_per_s(policy, curve, lanes)
    server = Simulation(policy, curve, lanes, refuses)
    server.run(poisson(times * capacity, 3 * S), 100)
    missed = server.count(*MISSED, since_ns=S)
    answered = server.count("answered", since_ns=S)
    return server.goodput_per_s(S, 3 * S) / capacity, missed / max(1, missed + answered)


@pytest.mark.parametrize("name", CURVES)
def test_at_three_times_capacity_goodput_is_nine_tenths_of_it(name):
    good, missed = good_and_missed(name, 3)
    assert good > (0.8 if name in HARD else 0.9)
    assert missed < (0.03 if name == "steps" else 0.01)  # of which each is learned by itself


@pytest.mark.parametrize(("lanes", "most"), [(2, 32), (4, 8), (1, 1)])
def test_lanes_and_batch_sizes_make_no_difference(lanes, most):
    good, missed = good_and_missed("flat", 3, lanes, most)
    assert good > 0.9
    assert missed < 0.01


@pytest.mark.parametrize("name", ["flat", "linear", "steps", "noisy"])
def test_below_capacity_nobody_is_refused(name):
    good, missed = good_and_missed(name, 0.8)
    assert good == pytest.approx(0.8, abs=0.06)
    assert missed == 0


def test_without_admission_the_same_overload_answers_hardly_anybody_in_time():
    assert good_and_missed("flat", 3, refuses=False)[0] < 0.05


@pytest.mark.parametrize("factor", [0.3, 3])
def test_a_change_of_the_models_speed_costs_less_than_a_second(factor):
    speed = [1.0]
    policy = BatchPolicy()
    server = Simulation(policy, lambda rows: speed[0] * (5 + 0.5 * rows) * MS)
    server.at(S, lambda now: speed.__setitem__(0, factor))
    capacity = capacity_per_s(policy, server.curve)
    server.run(poisson(4 * capacity, 4 * S), 100)
    assert server.goodput_per_s(2 * S, 4 * S) >= 0.8 * min(2.8, 1 / factor) * capacity
    answered, missed = server.count("answered", since_ns=2 * S), server.count(*MISSED, since_ns=2 * S)
    assert missed < 0.01 * answered


# -- the objective's delay -------------------------------------------------------------------------------------------


def holding():
    """Has just ended a run of 2 rows, 20 ms each, and tries a delay of 5 ms."""
    admission, now = Admission(BatchPolicy(max_batch_size=32, latency_slo_ns=200 * MS), 1), NOW
    for _ in range(60):
        now = ran(admission, 2, 20, now)
        if admission.hold_until_ns(1, None, now) is not None:
            return admission, now
    raise AssertionError("no delay was tried")


def test_who_has_time_waits_for_the_objectives_delay():
    admission, now = holding()
    assert admission.hold_until_ns(1, now + 500 * MS, now) == admission.hold_until_ns(1, None, now)


def test_who_would_miss_its_own_deadline_is_not_held():
    admission, now = holding()
    assert admission.hold_until_ns(1, now + 21 * MS, now) is None


def test_a_deadline_that_is_near_ends_the_objectives_delay_earlier():
    admission, now = holding()
    until_ns = admission.hold_until_ns(1, None, now)
    run_ns = admission.latency.run_ns[2] * admission.latency.spread
    first_ns = until_ns + int(run_ns)
    held_ns = admission.hold_until_ns(1, first_ns, now)
    assert held_ns is not None
    assert now < held_ns < until_ns

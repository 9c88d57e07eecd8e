"""How a process ended, in words."""

from accelserve.process_ends import signal_name


def test_a_signal_is_told_by_its_name_and_one_without_by_its_number():
    assert (signal_name(9), signal_name(40)) == ("SIGKILL", "signal 40")

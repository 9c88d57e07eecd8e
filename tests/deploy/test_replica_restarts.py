"""How an end is told, and how long is waited after it."""

import pytest

from accelserve.deploy.restarts import BackOff, Ending
from accelserve.errors import ExitCode

S = 1_000_000_000


@pytest.mark.parametrize(
    ("status", "told", "lasting", "code"),
    [
        (0, "ended with 0 (it ended by itself)", False, ExitCode.UNFORESEEN),
        (1, "ended with 1 (something unforeseen happened)", False, ExitCode.UNFORESEEN),
        (2, "ended with 2 (its configuration is wrong)", True, ExitCode.USAGE),
        (3, "ended with 3 (the model or the entry script does not load)", True, ExitCode.LOAD_FAILED),
        (4, "ended with 4 (something that it needs is not there)", True, ExitCode.NOT_FOUND),
        (5, "ended with 5 (something that it needs is in use)", True, ExitCode.CONFLICT),
        (6, "ended with 6 (a required device is missing)", True, ExitCode.DEVICE_MISSING),
        (77, "ended with 77", False, ExitCode.UNFORESEEN),
        (-9, "was killed by SIGKILL", False, ExitCode.UNFORESEEN),
        (-11, "was killed by SIGSEGV", False, ExitCode.UNFORESEEN),
        (-200, "was killed by signal 200", False, ExitCode.UNFORESEEN),
    ],
)
def test_an_ending_is_told_in_words(status, told, lasting, code):
    ending = Ending(status)
    assert (str(ending), ending.is_lasting, ending.exit_code) == (told, lasting, code)


def test_the_wait_doubles_up_to_a_minute():
    waits = [BackOff().wait_ns(failures) // S for failures in range(10)]
    assert waits == [0, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert BackOff().wait_ns(10**6) == 60 * S

"""The bar of things done."""

import fcntl
import io
import os
import struct
import termios

import pytest

from accelserve.commands.progress import CountBar, ProgressLine


class Terminal(io.StringIO):
    def isatty(self):
        return True


def bar_on(stream, times):
    ticks = iter(times)
    return CountBar(stream, lambda: next(ticks), "scored", 10)


def test_on_a_terminal_it_is_one_line_with_rate_and_rest_that_goes_away():
    stream = Terminal()
    bar = bar_on(stream, [0, 0.4, 2.0, 2.05])
    bar(1)
    bar(5)
    bar(6)
    bar.end()
    assert stream.getvalue() == "\r\033[K[############............] scored 5 of 10, 2.5/s, 2 s left\r\033[K"


def test_it_makes_room_for_other_lines():
    stream = Terminal()
    bar = bar_on(stream, [0, 2.0])
    bar(10)
    with bar.hidden():
        stream.write("an answer\n")
    said = "[########################] scored 10 of 10, 5.0/s, 0 s left"
    assert stream.getvalue() == f"\r\033[K{said}\r\033[Kan answer\n{said}"


def test_in_a_log_it_is_a_line_every_five_seconds():
    stream = io.StringIO()
    bar = bar_on(stream, [0, 4, 5, 7])
    bar(1)
    bar(2)
    with bar.hidden():
        stream.write("an answer\n")
    bar(3)
    bar.end()
    assert stream.getvalue() == "scored 2 of 10, 0.4/s, 20 s left\nan answer\n"


@pytest.mark.parametrize(("columns", "shown"), [(20, 19), (1, 0), (0, 59)])
def test_on_a_narrow_terminal_it_stays_on_one_line(columns, shown):
    ours, theirs = os.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "w") as terminal:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        bar_on(terminal, [0, 2.0])(10)
        line = screen.read(4096).removeprefix(b"\r\033[K")
        assert len(line) == shown
        made = ProgressLine(terminal, iter([0, 1.0]).__next__)
        made("a name that is long enough", 1, 2)
        assert len(screen.read(4096).removeprefix(b"\r\033[K")) == min(shown, 44)

"""What a worker prints, as bounded lines."""

from accelserve.entry_script.output import MOST_LINE_BYTES, MOST_LINES, OutputLines

SECOND = 10**9


def test_lines_are_cut_where_they_end_however_they_come():
    lines = OutputLines()
    assert lines.feed(b"one\ntw", 0) == ["one"]
    assert lines.feed(b"o\r\n\nthree", 0) == ["two", ""]
    assert lines.end() == ["three"]


def test_a_line_without_end_is_told_once_and_cut():
    lines = OutputLines()
    long = b"x" * (MOST_LINE_BYTES + 1)
    (told,) = lines.feed(long, 0)
    assert told == "x" * MOST_LINE_BYTES + " ... (cut)"
    assert lines.feed(long, 0) == []
    assert lines.feed(b"rest\nnext\n", 0) == ["next"]


def test_more_than_a_thousand_lines_in_a_second_are_counted():
    lines = OutputLines()
    assert len(lines.feed(b"x\n" * (MOST_LINES + 5), 10 * SECOND)) == MOST_LINES
    assert lines.feed(b"x\n", 10 * SECOND + 1) == []
    assert lines.feed(b"y\n", 11 * SECOND) == ["(6 lines were not logged: more than 1000 in a second)", "y"]


def test_at_the_end_it_is_told_what_was_not():
    lines = OutputLines()
    lines.feed(b"x\n" * (MOST_LINES + 1), 10 * SECOND)
    assert lines.end() == ["(1 lines were not logged: more than 1000 in a second)"]


def test_what_is_no_utf8_is_told_by_its_bytes():
    assert OutputLines().feed(b"\xff\xe4\n", 0) == ["\\xff\\xe4"]

"""What a script raised, as text for the log."""

from accelserve.entry_script.tracebacks import told


def raised(error):
    try:
        raise error
    except BaseException as caught:
        return caught


def test_the_error_is_told_with_its_lines():
    lines = told(raised(ValueError("no"))).splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: no"


def test_both_ends_of_a_long_one_are_kept():
    text = told(raised(ValueError("x" * 10**6 + "end")))
    assert len(text) < 17_000
    assert text.startswith("Traceback")
    assert text.endswith("xend\n")


def test_half_a_character_is_escaped():
    assert "\\ud800" in told(raised(ValueError("\ud800")))


def test_an_error_that_cannot_be_told_is_named():
    class Bad(BaseException):
        def __getattribute__(self, name):
            raise RuntimeError

    assert told(Bad()).startswith("Bad, which cannot be told")

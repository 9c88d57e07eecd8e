"""Log lines that people and machines can read, whatever is thrown at them."""

import io
import json
import logging
import re

import pytest

from accelserve.observability.logs import clean_request_id, configure_logging, new_request_id


@pytest.fixture
def logger():
    """The tree as it was, given back afterwards."""
    names = ("accelserve", "uvicorn", "uvicorn.error", "uvicorn.access")
    before = {
        n: (logging.getLogger(n).handlers[:], logging.getLogger(n).level, logging.getLogger(n).propagate) for n in names
    }
    yield logging.getLogger("accelserve.models")
    for name, (handlers, level, propagate) in before.items():
        found = logging.getLogger(name)
        found.handlers[:], found.propagate = handlers, propagate
        found.setLevel(level)


def configured(*, as_json: bool, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    configure_logging(json=as_json, level=level, stream=stream)
    return stream


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def test_a_plain_line_is_time_level_logger_message_and_fields(logger):
    stream = configured(as_json=False)
    logger.info("%s is AVAILABLE", "resnet50:3", extra={"request_id": "abc", "path": "a b"})
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
    wanted = time + r' INFO accelserve\.models resnet50:3 is AVAILABLE request_id=abc path="a b"\n'
    assert re.fullmatch(wanted, stream.getvalue())


def test_a_json_line_is_one_object(logger):
    stream = configured(as_json=True)
    logger.warning("slow\nvery", extra={"request_id": "abc", "rows": 4, "shape": (1, 2)})
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("ts"))
    wanted = {"level": "WARNING", "logger": "accelserve.models", "message": "slow\nvery"}
    assert entry == {**wanted, "request_id": "abc", "rows": 4, "shape": [1, 2]}


def test_times_are_the_records_in_utc(logger):
    stream = configured(as_json=True)
    record = logging.LogRecord("accelserve.models", logging.INFO, "", 0, "x", (), None)
    record.created = 1_795_282_396.9996
    logger.handle(record)
    assert json.loads(stream.getvalue())["ts"] == "2026-11-21T17:33:16.999Z"


@pytest.mark.parametrize("as_json", [True, False])
def test_a_traceback_is_kept(logger, as_json):
    stream = configured(as_json=as_json)
    try:
        raise KeyError("gone")
    except KeyError:
        logger.exception("could not load")
    text = json.loads(stream.getvalue())["exc"] if as_json else stream.getvalue()
    assert "Traceback" in text
    assert "KeyError: 'gone'" in text


def test_a_client_cannot_forge_a_line(logger):
    stream = configured(as_json=False)
    logger.info("no model %s", "x\n2026 INFO fake\x1b[31m\u2028", extra={"user": "a\nb"})
    (line,) = stream.getvalue().splitlines()
    assert r"x\x0a2026 INFO fake\x1b[31m\u2028" in line
    assert line.endswith(r'user="a\x0ab"')


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "odd", [Unshowable(), float("nan"), {1: {2, 3}}, {"a": float("inf")}, b"\xff", "\udcff", {(1, 2): 3}, object()]
)
def test_odd_objects_are_shown_somehow(logger, as_json, odd, capsys):
    stream = configured(as_json=as_json)
    logger.info("field", extra={"odd": odd})
    logger.info("argument %s", odd)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert capsys.readouterr().err == ""  # where logging complains of itself
    stream.getvalue().encode()
    if as_json:
        for line in lines:
            json.loads(line, parse_constant=pytest.fail)


def test_an_object_that_holds_itself_is_shown_somehow(logger):
    stream = configured(as_json=True)
    loop: list[object] = []
    loop.append(loop)
    logger.info("field", extra={"odd": loop})
    assert json.loads(stream.getvalue())["odd"] == "[[...]]"


def test_arguments_that_do_not_fit_are_shown_as_such(logger, capsys):
    stream = configured(as_json=False)
    logger.info("%d rows", "many")
    assert "%d rows (its arguments cannot be shown: TypeError)" in stream.getvalue()
    assert capsys.readouterr().err == ""


def test_an_exception_that_cannot_be_shown_loses_only_itself(logger):
    class Bad(Exception):
        __str__ = Unshowable.__str__

    stream = configured(as_json=True)
    logger.error("broke", exc_info=Bad())
    assert "Bad" in json.loads(stream.getvalue())["exc"]


def test_uvicorns_errors_come_along_and_its_access_log_does_not(logger):
    stream = configured(as_json=False)
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("uvicorn.error").error("Broken", extra={"color_message": "\x1b[36mBroken"})
    logging.getLogger("uvicorn.access").info("GET /")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("ERROR uvicorn.error Broken")
    assert not logging.getLogger("uvicorn.access").hasHandlers()  # what uvicorn asks before it formats a line


def test_a_second_configuration_replaces_the_first(logger):
    first = configured(as_json=False)
    second = configured(as_json=True, level="WARNING")
    logger.info("too low")
    logger.warning("once")
    assert first.getvalue() == ""
    assert [json.loads(line)["message"] for line in second.getvalue().splitlines()] == ["once"]


def test_an_unknown_level_is_refused(logger):
    with pytest.raises(ValueError, match="LOUD"):
        configured(as_json=False, level="loud")


def test_request_ids_are_32_hexadecimal_digits_and_differ():
    ids = {new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch("[0-9a-f]{32}", i) for i in ids)


@pytest.mark.parametrize("text", ["a", "7f3b-11", "x" * 128, "urn:uuid:1/2;a=b"])
def test_a_fit_client_id_is_kept(text):
    assert clean_request_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 129, "a b", "a\n", "a\r\nset-cookie: x", "é", "\x7f", "a\tb"])
def test_an_unfit_client_id_is_dropped(text):
    assert clean_request_id(text) is None

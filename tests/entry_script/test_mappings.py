"""Headers and query parameters as scripts know them from Flask."""

import json

import pytest

from accelserve.entry_script.mappings import Headers, MultiDict

HEADERS = [("Content-Type", "a"), ("X-A", "1"), ("X-A", "2")]
PAIRS = [("a", "1"), ("b", "x"), ("a", "two")]


def test_headers_are_found_whatever_their_case():
    headers = Headers(HEADERS)
    assert headers["content-type"] == headers.get("CONTENT-TYPE") == "a"
    assert [name in headers for name in ("x-a", "x-b", 7)] == [True, False, False]
    with pytest.raises(KeyError):
        headers["x-b"]


def test_repeated_headers_are_joined_and_listed():
    headers = Headers(HEADERS)
    assert headers["x-a"] == "1,2"
    assert headers.getlist("x-a") == headers.get_all("X-A") == ["1", "2"]
    assert dict(headers) == {"Content-Type": "a", "X-A": "1,2"}
    assert list(headers) == headers.items() == HEADERS


def test_a_value_that_cannot_be_converted_is_not_there():
    headers = Headers([("n", "7"), ("t", "x")])
    assert headers.get("n", type=int) == 7
    assert headers.get("t", 3, int) == headers.get("none", 3, int) == 3


def test_headers_of_a_response_are_set_added_and_removed():
    headers = Headers()
    headers["X-A"] = 1
    headers.add("x-a", "2")
    headers["x-b"] = True
    assert headers.items() == [("X-A", "1"), ("x-a", "2"), ("x-b", "True")]
    headers.set("x-A", "3")
    del headers["x-b"]
    headers.setdefault("x-a", "4")
    headers.update({"y": 1}, z=2)
    assert headers.items() == [("x-A", "3"), ("y", "1"), ("z", "2")]


@pytest.mark.parametrize(
    ("name", "value"),
    [("a", "b\r\nx: y"), ("a", "b\nc"), ("a", "\0"), ("a", "€"), ("a b", "c"), ("", "c"), ("ä", "c"), ("a:", "c")],
)
def test_what_would_break_a_head_is_refused(name, value):
    with pytest.raises(ValueError, match="header"):
        Headers().add(name, value)


def test_parameters_are_a_dict_of_first_values():
    args = MultiDict(PAIRS)
    assert args == {"a": "1", "b": "x"}
    assert json.dumps(args) == '{"a": "1", "b": "x"}'
    assert args["a"] == args.get("a") == "1"
    assert args.get("a", type=int) == 1
    assert args.get("b", 5, int) == args.get("none", 5) == 5


def test_all_values_of_a_parameter_are_listed():
    args = MultiDict(PAIRS)
    assert args.getlist("a") == ["1", "two"]
    assert args.getlist("a", int) == [1]
    assert args.getlist("none") == []
    assert dict(args.lists()) == args.to_dict(flat=False) == {"a": ["1", "two"], "b": ["x"]}
    assert list(args.items(multi=True)) == [("a", "1"), ("a", "two"), ("b", "x")]
    assert args.to_dict() == {"a": "1", "b": "x"}


def test_headers_that_are_printed_show_no_key():
    headers = Headers([("Authorization", "Bearer secret"), ("Accept", "*/*")])
    assert repr(headers) == "Headers([('Authorization', '...'), ('Accept', '*/*')])"
    assert headers["authorization"] == "Bearer secret"

"""AMLResponse: the original's rules where it is strict, and where not, nothing is lost."""

import numpy as np
import pytest

from accelserve.entry_script.aml_response import AMLResponse, StrictAMLResponse

BOTH = pytest.mark.parametrize("response", [AMLResponse, StrictAMLResponse])


@BOTH
def test_text_and_bytes_go_as_they_are(response):
    assert response("é", 200).data == "é".encode()
    assert response(b"\xff", 200).data == b"\xff"
    assert response(bytearray(b"ab"), 200).get_data(as_text=True) == "ab"
    assert response("x", 200).content_type == "text/html; charset=utf-8"


@BOTH
def test_none_is_an_empty_document(response):
    made = response(None, 200)
    assert (made.data, made.content_type) == (b"{}", "application/json")


@BOTH
def test_json_str_makes_json(response):
    made = response([1, "a"], 201, json_str=True)
    assert made.data.replace(b" ", b"") == b'[1,"a"]'
    assert (made.status_code, made.mimetype, made.status) == (201, "application/json", "201 CREATED")


@BOTH
def test_pieces_are_joined(response):
    assert response((part for part in ["a", b"b", bytearray(b"c")]), 200).data == b"abc"
    assert response(["a", "b"], 200).data == b"ab"


@BOTH
def test_a_content_type_of_the_scripts_own_replaces_ours(response):
    made = response(b"\xff\xd8", 200, {"Content-Type": "image/jpeg", "X-A": "1"})
    assert made.headers.getlist("content-type") == ["image/jpeg"]
    assert made.headers["x-a"] == "1"
    assert made.headers["x-ms-run-function-failed"] == "False"


def test_commas_split_a_header_only_where_it_is_strict():
    headers = {"Last-Modified": "Thu, 26 Nov 2026 08:00:00 GMT"}
    assert AMLResponse("", 200, headers).headers.getlist("last-modified") == ["Thu, 26 Nov 2026 08:00:00 GMT"]
    split = StrictAMLResponse("", 200, headers).headers.getlist("last-modified")
    assert split == ["Thu", "26 Nov 2026 08:00:00 GMT"]


def test_a_list_of_values_is_a_repeated_header():
    assert AMLResponse("", 200, {"Set-Cookie": ["a=1", "b=2"]}).headers.getlist("set-cookie") == ["a=1", "b=2"]


def test_values_that_are_no_text_are_written_as_text():
    assert AMLResponse("", 200, {"X-Count": 5}).headers["x-count"] == "5"


def test_a_content_type_in_lower_case_replaces_ours_too():
    assert AMLResponse("", 200, {"content-type": "a/b"}).headers.getlist("content-type") == ["a/b"]
    strict = StrictAMLResponse("", 200, {"content-type": "a/b"})
    assert strict.headers.getlist("content-type") == ["text/html; charset=utf-8", "a/b"]


def test_a_dict_is_json_and_where_it_is_strict_its_keys():
    made = AMLResponse({"k": 1}, 200)
    assert (made.data, made.mimetype) == (b'{"k":1}', "application/json")
    strict = StrictAMLResponse({"k": 1}, 200)
    assert (strict.data, strict.mimetype) == (b"k", "text/html")


@pytest.mark.parametrize(
    ("message", "body"),
    [(7, b"7"), (np.float32([0.5, 1]), b"[0.5,1.0]"), ([1, 2], b"[1,2]"), ([], b"[]"), (True, b"true")],
)
def test_what_is_no_text_is_json(message, body):
    assert AMLResponse(message, 200).data == body


def test_strict_pieces_that_are_no_text_fail_when_they_are_sent():
    with pytest.raises(TypeError):
        _ = StrictAMLResponse(7, 200).data


@BOTH
@pytest.mark.parametrize("status", [99, 100, 1000, "abc", None])
def test_a_status_that_no_answer_has_is_refused(response, status):
    with pytest.raises((ValueError, TypeError)):
        response("", status)


@BOTH
def test_a_status_may_be_text(response):
    assert response("", "404 NOT FOUND").status_code == 404


@BOTH
def test_a_header_that_would_end_the_head_is_refused(response):
    with pytest.raises(ValueError, match="line end"):
        response("", 200, {"X-A": "1\r\nX-B: 2"})


@BOTH
def test_a_file_is_read(response, tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    for mode in ("r", "rb"):
        with (tmp_path / "f").open(mode) as stream:
            assert response(stream, 200).data == b"abc"


def test_the_body_can_be_replaced():
    made = AMLResponse("a", 200)
    made.data = b"other"
    made.content_type = "text/plain"
    assert (made.get_data(), made.headers["content-type"]) == (b"other", "text/plain")


@BOTH
def test_it_is_changed_after_it_was_made_as_flasks_can_be(response):
    made = response(b"\x89PNG", 200)
    made.mimetype, made.status = "image/png", "503 BUSY"
    assert (made.content_type, made.status_code, made.status) == ("image/png", 503, "503 SERVICE UNAVAILABLE")
    made.mimetype = "text/plain"
    assert made.content_type == "text/plain; charset=utf-8"


@BOTH
def test_cookies_are_headers_of_their_own(response):
    made = response("x", 200)
    made.set_cookie("a", "1")
    made.set_cookie("b", "2", max_age=60, path=None, httponly=True, secure=False)
    assert made.headers.getlist("set-cookie") == ["a=1; Path=/", "b=2; HttpOnly; Max-Age=60"]
    with pytest.raises(ValueError, match="line end"):
        made.set_cookie("c", "1", path="/\r\nX-Evil: 1")


@BOTH
def test_a_body_of_json_is_read_back(response):
    made = response({"a": 1}, 200, json_str=True)
    assert (made.is_json, made.json, made.get_json()) == (True, {"a": 1}, {"a": 1})
    text = response("{", 200)
    assert (text.is_json, text.json, text.get_json(force=True, silent=True)) == (False, None, None)
    with pytest.raises(ValueError, match="Expecting"):
        text.get_json(force=True)

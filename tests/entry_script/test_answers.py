"""What run() returned becomes a response."""

import pytest

from accelserve.entry_script.aml_response import AMLResponse
from accelserve.entry_script.answers import Answers, UnencodableAnswer, error_response
from accelserve.entry_script.json_answers import JsonEncoder
from accelserve.entry_script.messages import ScriptResponse

ANSWERS = Answers(JsonEncoder())


class FlaskLike:
    """What werkzeug's Response has."""

    mimetype = "image/png"
    direct_passthrough = True

    def __init__(self, status_code=200, headers=()):
        self.status_code = status_code
        self.headers = Pairs(headers)

    def get_data(self):
        assert not self.direct_passthrough
        return b"\x89PNG"


class Pairs:
    def __init__(self, pairs):
        self._pairs = list(pairs)

    def items(self):
        return iter(self._pairs)


def test_a_value_is_json():
    assert ANSWERS.response([1], 5) == ScriptResponse(200, b"[1]", "application/json", (), 5, False)


def test_text_is_a_json_string_and_a_tuple_a_list():
    assert ANSWERS.response('{"a": 1}', 5).body == b'"{\\"a\\": 1}"'
    assert ANSWERS.response(("x", 404), 5).body == b'["x",404]'


def test_none_is_an_empty_document():
    assert ANSWERS.response(None, 5).body == b"{}"


def test_a_response_of_ours_is_passed_on():
    made = AMLResponse(b"\xff\xd8", 201, {"Content-Type": "image/jpeg", "X-A": "1", "Content-Length": "7"})
    assert ANSWERS.response(made, 5) == ScriptResponse(201, b"\xff\xd8", "image/jpeg", (("x-a", "1"),), 5, False)


@pytest.mark.parametrize(
    ("response", "failed"),
    [
        (AMLResponse("", 503), True),
        (AMLResponse("", 499), False),
        (AMLResponse("", 200, run_function_failed=True), True),
        (AMLResponse("", 200, {"x-ms-run-function-failed": "True"}), True),
    ],
)
def test_who_is_to_blame_is_told(response, failed):
    answer = ANSWERS.response(response, 5)
    assert answer.failed is failed
    assert "x-ms-run-function-failed" not in dict(answer.headers)


def test_a_response_of_flask_is_passed_on_with_repeated_headers():
    made = FlaskLike(headers=[("Content-Type", "image/png"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    cookies = (("set-cookie", "a=1"), ("set-cookie", "b=2"))
    assert ANSWERS.response(made, 5) == ScriptResponse(200, b"\x89PNG", "image/png", cookies, 5, False)


@pytest.mark.parametrize(
    "made", [FlaskLike(100), FlaskLike(headers=[("X", "a\r\nb")]), FlaskLike(headers=[("X", "€")])]
)
def test_a_response_that_http_cannot_carry_is_an_error(made):
    with pytest.raises(UnencodableAnswer):
        ANSWERS.response(made, 5)


def test_a_response_whose_data_are_no_bytes_is_an_error():
    class OfText(FlaskLike):
        def get_data(self):
            return "text"

    with pytest.raises(UnencodableAnswer, match="whose data is str"):
        ANSWERS.response(OfText(), 5)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_none(status):
    assert ANSWERS.response(AMLResponse("text", status), 5).body == b""


def test_what_has_no_form_is_told_by_its_type():
    with pytest.raises(UnencodableAnswer, match="returned set: "):
        ANSWERS.response({1}, 5)


def test_an_error_is_a_message():
    assert error_response(400, 'a "b" \ud800').body == b'{"message": "a \\"b\\" ?"}'

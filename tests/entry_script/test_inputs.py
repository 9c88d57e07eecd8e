"""What run() is called with: the tables of section 2.4, where nothing is lost, and as the original has it."""

import json

import pytest

from accelserve.entry_script.aml_request import AMLRequest
from accelserve.entry_script.inputs import InputRefused, Inputs, ScriptError
from accelserve.entry_script.messages import ScriptRequest

JPEG = b"\xff\xd8\xff\xe0"
QUERY = b"a=1&b=[1,2]&c=x&c=y&d=null&e="
IN_QUERY = {"a": 1, "b": [1, 2], "c": ["x", "y"], "d": None, "e": ""}


def request(body=b"", method="POST", query=b"", content_type=None):
    headers = (("content-type", content_type),) if content_type else ()
    return ScriptRequest(method, "/score", query, headers, body)


def run(raw_data):
    return raw_data


def with_headers(data, request_headers):
    return data, request_headers


def text(asked, strict=False):
    return Inputs(run, raw=False, strict=strict).arguments(asked)["raw_data"]


def test_a_body_is_text():
    assert text(request('{"data": "é"}'.encode())) == '{"data": "é"}'
    assert text(request()) == ""


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_body_with_the_type_of_a_form_is_lost_only_where_it_is_strict(kind):
    assert text(request(b'{"data": [1]}', content_type=kind)) == '{"data": [1]}'
    assert text(request(b'{"data": [1]}', content_type=kind), strict=True) == ""


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(InputRefused, match=r"Input cannot be decoded as UTF-8: .* 0xff in position 0") as refused:
        text(request(JPEG, content_type="image/jpeg"))
    assert refused.value.status == 400


def test_a_query_is_text_of_json():
    assert json.loads(text(request(method="GET", query=QUERY))) == IN_QUERY
    assert text(request(method="GET")) == "{}"


def test_a_query_with_endless_brackets_is_text():
    assert json.loads(text(request(method="GET", query=b"a=" + b"[" * 50_000))) == {"a": "[" * 50_000}


def test_head_is_read_like_get_but_not_where_it_is_strict():
    assert json.loads(text(request(method="HEAD", query=QUERY))) == IN_QUERY
    with pytest.raises(InputRefused) as refused:
        text(request(method="HEAD"), strict=True)
    assert refused.value.status == 405


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 200), ("PUT", 405), ("DELETE", 405)])
def test_other_methods_do_not_reach_run(method, status):
    with pytest.raises(InputRefused) as refused:
        text(request(method=method))
    assert refused.value.status == status


def test_headers_come_as_a_dict_where_run_asks_for_them():
    asked = ScriptRequest("POST", "/score", b"", (("x-ms-a", "1"), ("x-b", "2"), ("x-b", "3")), b"x")
    arguments = Inputs(with_headers, raw=False, strict=False).arguments(asked)
    assert arguments == {"data": "x", "request_headers": {"X-Ms-A": "1", "X-B": "2,3"}}


def test_a_raw_script_gets_the_request():
    inputs = Inputs(run, raw=True, strict=False)
    assert inputs.shape == "rawhttp"
    got = inputs.arguments(request(JPEG, method="PATCH"))["raw_data"]
    assert isinstance(got, AMLRequest)
    assert (got.method, got.get_data(False)) == ("PATCH", JPEG)


def test_a_raw_script_sees_head_as_get_but_not_where_it_is_strict():
    for strict, method in ((False, "GET"), (True, "HEAD")):
        got = Inputs(run, raw=True, strict=strict).arguments(request(method="HEAD"))["raw_data"]
        assert got.method == method


@pytest.mark.parametrize("data", [{"raw_data": 1}, {"x": 1, "raw_data": [1, 2]}])
def test_the_first_parameter_gets_the_data_whatever_its_name(data):
    assert Inputs(lambda anything: 0, raw=False, strict=False).arguments(request(b"x")) == {"anything": "x"}


@pytest.mark.parametrize(
    "function",
    [lambda: 0, lambda request_headers: 0, lambda x, /: 0, lambda *x: 0, lambda x, **y: 0, "no function", 5],
)
def test_a_run_that_cannot_be_called_is_refused(function):
    with pytest.raises(ScriptError, match="run"):
        Inputs(function, raw=False, strict=False)


class Schema:
    """inference-schema's module, as far as it is asked."""

    @staticmethod
    def is_schema_decorated(function):
        return getattr(function, "__name__", "") == "fields"


def fields(a, b=5):
    return a, b


@pytest.fixture
def schema(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "inference_schema.schema_util", Schema)


def by_name(asked, strict=False):
    return Inputs(fields, raw=False, strict=strict).arguments(asked)


JSON = "application/json"


@pytest.mark.usefixtures("schema")
def test_a_schema_gets_its_fields_and_defaults():
    assert Inputs(fields, raw=False, strict=False).shape == "schema"
    assert by_name(request(b'{"a": [1], "z": 2}', content_type=JSON)) == {"a": [1], "b": 5}
    assert by_name(request(b'{"a": 1, "b": 2}', content_type="application/x+json; charset=utf-8")) == {"a": 1, "b": 2}
    assert by_name(request(method="GET", query=b"a=[1,2]")) == {"a": [1, 2], "b": 5}


@pytest.mark.usefixtures("schema")
@pytest.mark.parametrize(
    ("asked", "status", "message"),
    [
        (request(b'{"b": 1}', content_type=JSON), 400, "A value is not provided for the 'a' parameter."),
        (request(b"", content_type=JSON), 400, "POST body is empty. Expecting a JSON dictionary."),
        (request(b"[1]", content_type=JSON), 400, "POST body should be a JSON dictionary."),
        (
            request(b"{bad", content_type=JSON),
            400,
            "POST body could not be decoded as JSON: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1)",
        ),
        (request(JPEG, content_type="image/jpeg"), 415, "Expects Content-Type to be application/json"),
        (request(b"[" * 100_000, content_type=JSON), 400, None),
        (request(b'"\xff"', content_type=JSON), 400, None),
    ],
)
def test_a_schema_refuses_what_is_not_for_it(asked, status, message):
    with pytest.raises(InputRefused) as refused:
        by_name(asked)
    assert refused.value.status == status
    assert message is None or refused.value.message == message


@pytest.mark.usefixtures("schema")
def test_a_schema_reads_json_under_any_type_but_not_where_it_is_strict():
    asked = request(b'{"a": 1}', content_type="text/plain")
    assert by_name(asked) == {"a": 1, "b": 5}
    with pytest.raises(InputRefused) as refused:
        by_name(asked, strict=True)
    assert refused.value.status == 415


@pytest.mark.usefixtures("schema")
def test_a_raw_schema_is_refused():
    with pytest.raises(ScriptError, match="both"):
        Inputs(fields, raw=True, strict=False)

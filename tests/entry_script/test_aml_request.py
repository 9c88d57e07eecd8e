"""The request of an `@rawhttp` script, as Flask's would answer."""

import pytest

from accelserve.entry_script.aml_request import AMLRequest
from accelserve.entry_script.messages import ScriptRequest
from accelserve.errors import ScoringError

FORM = (
    b'--b\r\nContent-Disposition: form-data; name="image"; filename="cat.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    b"\xff\xd8\r\n\x00\r\n"
    b'--b\r\nContent-Disposition: form-data; name="top"\r\n\r\n5\r\n--b--\r\n'
)


def request(body=b"", query=b"", strict=False, method="POST", **headers):
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return AMLRequest(ScriptRequest(method, "/score", query, pairs, body), strict)


def test_the_body_is_the_bytes_themselves():
    body = b"\xff\xd8" * 1000
    asked = request(body, content_type="application/x-www-form-urlencoded")
    assert asked.get_data(False) is body
    assert asked.get_data() is asked.data is body
    assert asked.stream.read() == body
    assert asked.content_length == 2000


def test_data_of_a_form_is_lost_only_where_it_is_strict():
    asked = request(b"{}", strict=True, content_type="application/x-www-form-urlencoded; charset=utf-8")
    assert asked.data == b""
    assert asked.get_data() == b"{}"
    assert asked.get_data(parse_form_data=True) == b""


def test_text_is_decoded_on_request():
    assert request("é".encode()).get_data(as_text=True) == "é"


def test_headers_look_as_in_flask():
    asked = request(x_ms_thing="1", content_type="application/json; charset=utf-8", host="h:1", user_agent="curl/8")
    assert asked.headers["X-MS-THING"] == "1"
    assert dict(asked.headers)["X-Ms-Thing"] == "1"
    assert asked.mimetype == "application/json"
    assert asked.is_json
    assert asked.user_agent == "curl/8"


def test_json_is_read_whatever_the_type_says_unless_it_is_strict():
    assert request(b'{"a": 1}').json == {"a": 1}
    with pytest.raises(ValueError, match="application/json"):
        _ = request(b'{"a": 1}', strict=True).json
    assert request(b'{"a": 1}', strict=True).get_json(force=True) == {"a": 1}
    assert request(b'{"a": 1}', strict=True, content_type="application/vnd.x+json").json == {"a": 1}
    assert request(b"{}", strict=True).get_json(silent=True) is None


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_json_that_is_none_is_an_error_or_silence(body):
    assert request(body).get_json(silent=True) is None
    with pytest.raises((ValueError, RecursionError)):
        request(body).get_json()


def test_the_address_is_taken_apart():
    asked = request(query=b"a=1&a=2&b=%20x&c=", host="localhost:5001")
    assert asked.args.getlist("a") == ["1", "2"]
    assert asked.args["b"] == " x"
    assert asked.args["c"] == ""
    assert asked.query_string == b"a=1&a=2&b=%20x&c="
    assert asked.full_path == "/score?a=1&a=2&b=%20x&c="
    assert asked.url == "http://localhost:5001/score?a=1&a=2&b=%20x&c="
    assert asked.base_url == "http://localhost:5001/score"
    assert asked.host_url == asked.url_root == "http://localhost:5001/"
    assert request(host="h").url == "http://h/score"


def test_a_form_has_fields_and_files():
    asked = request(FORM, content_type="multipart/form-data; boundary=b")
    assert asked.form == {"top": "5"}
    file = asked.files["image"]
    assert (file.filename, file.mimetype, file.name) == ("cat.jpg", "image/jpeg", "image")
    assert file.read() == b"\xff\xd8\r\n\x00"
    assert asked.get_data(False) == FORM


def test_a_file_is_saved(tmp_path):
    asked = request(FORM, content_type="multipart/form-data; boundary=b")
    asked.files["image"].save(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"\xff\xd8\r\n\x00"


def test_a_urlencoded_form_has_fields():
    asked = request(b"a=1&b=x+y", b"q=2", content_type="application/x-www-form-urlencoded")
    assert asked.form == {"a": "1", "b": "x y"}
    assert asked.values == {"q": "2", "a": "1", "b": "x y"}
    assert not asked.files


def test_a_broken_form_is_an_error_when_it_is_asked_for():
    asked = request(FORM[:-20], content_type="multipart/form-data; boundary=b")
    assert asked.get_data() == FORM[:-20]
    with pytest.raises(ScoringError, match="broken"):
        _ = asked.form


def test_no_form_is_empty():
    assert not request(b"x").form
    assert not request(b"x").files


def test_cookies_are_read():
    assert request(cookie="a=1; b=2").cookies == {"a": "1", "b": "2"}


def test_scripts_may_hang_their_own_things_on_it():
    asked = request()
    asked.started = 5
    assert asked.started == 5


def test_the_name_of_a_file_comes_in_utf_8():
    form = '--b\r\nContent-Disposition: form-data; name="f"; filename="caf\u00e9 \u732b.jpg"\r\n\r\nx\r\n--b--\r\n'
    asked = request(form.encode(), content_type="multipart/form-data; boundary=b")
    assert asked.files["f"].filename == "caf\u00e9 \u732b.jpg"


def test_the_rest_that_scripts_read_of_flasks():
    asked = request(b"{}", b"a=1", content_type='text/plain; charset=utf-8; a="b c"', referer="http://a", x_a="1")
    assert asked.mimetype_params == {"charset": "utf-8", "a": "b c"}
    assert (asked.content_encoding, asked.referrer) == (None, "http://a")
    assert asked.environ["REQUEST_METHOD"] == asked.method
    assert (asked.environ["QUERY_STRING"], asked.environ["HTTP_X_A"]) == ("a=1", "1")
    assert asked.environ["CONTENT_TYPE"].startswith("text/plain")
    assert asked.environ["wsgi.input"].read() == b"{}"


def test_a_request_without_a_body_has_no_length_unless_it_says_so():
    assert request().content_length is None
    assert request(content_length="0").content_length == 0
    assert request(b"chunks").content_length == 6
    assert request().mimetype_params == {}

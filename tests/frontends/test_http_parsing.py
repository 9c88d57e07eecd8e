"""What httptools' parser has read."""

import httptools
import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_body import LARGE_BODY_BYTES
from accelserve.frontends.http_parsing import EnoughError, complete_scope, framing_of, is_brief, key_in, problem_of


class Reader:
    """A parser's callbacks. fault: raised when the head is complete."""

    def __init__(self, fault=None):
        self.url, self.fault = b"", fault

    def on_url(self, url):
        self.url += url

    def on_headers_complete(self):
        if self.fault is not None:
            raise self.fault


def read(head: bytes, fault=None):
    reader = Reader(fault)
    parser = httptools.HttpRequestParser(reader)
    parser.feed_data(head)
    return parser, reader.url


def test_a_head_becomes_a_scope():
    parser, url = read(b"PUT /v1/a%20b?x=1&y= HTTP/1.1\r\nHost: h\r\n\r\n")
    scope = {}
    complete_scope(scope, parser, url, "/root")
    assert scope == {
        "http_version": "1.1",
        "method": "PUT",
        "path": "/root/v1/a b",
        "raw_path": b"/root/v1/a%20b",
        "query_string": b"x=1&y=",
    }


def test_another_http_is_refused():
    parser, url = read(b"GET / HTTP/0.9\r\n\r\n")
    with pytest.raises(ScoringError, match=r"^HTTP/0\.9 is not spoken here"):
        complete_scope({}, parser, url, "")


def test_framing_is_all_that_is_left_of_a_head():
    headers = [(b"host", b"h"), (b"content-length", b"5"), (b"upgrade", b"h2c")]
    assert framing_of("1.0", headers) == b"POST / HTTP/1.0\r\ncontent-length: 5\r\n\r\n"
    assert framing_of("1.1", [(b"transfer-encoding", b"chunked")]).endswith(b"transfer-encoding: chunked\r\n\r\n")


@pytest.mark.parametrize(
    ("headers", "brief"),
    [
        ([], True),
        ([(b"content-length", str(LARGE_BODY_BYTES).encode())], True),
        ([(b"content-length", str(LARGE_BODY_BYTES + 1).encode())], False),
        ([(b"expect", b"100-continue"), (b"content-length", b"1")], False),
        ([(b"transfer-encoding", b"chunked")], False),
        ([(b"upgrade", b"h2c")], False),
    ],
)
def test_a_body_is_brief_if_it_comes_unasked_and_small(headers, brief):
    assert is_brief(headers) is brief


def test_one_key_is_a_key_and_two_are_none():
    assert key_in([(b"host", b"h"), (b"authorization", b"Bearer \xe9")]) == "Bearer \xe9"
    assert key_in([(b"authorization", b"a"), (b"authorization", b"a")]) is None
    assert key_in([]) is None


def told(head: bytes, fault=None) -> ScoringError | None:
    with pytest.raises(httptools.HttpParserError) as caught:
        read(head, fault)
    return problem_of(caught.value)


def test_what_stopped_the_parser_is_told():
    head, refusal = b"GET / HTTP/1.1\r\n\r\n", ScoringError(Kind.TOO_LARGE, "too large")
    assert told(head, refusal) is refusal
    assert told(head, EnoughError()) is None
    problem = told(b"nonsense\r\n\r\n")
    assert problem.kind is Kind.MALFORMED
    assert problem.message.startswith("malformed HTTP request: ")


def test_a_fault_of_ours_is_logged_and_not_told(caplog):
    problem = told(b"GET / HTTP/1.1\r\n\r\n", KeyError("ours"))
    assert (problem.kind, problem.message) == (Kind.INTERNAL, "internal error")
    assert "unforeseen" in caplog.text

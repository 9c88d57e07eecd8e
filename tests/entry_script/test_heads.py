"""Heads of frames: what goes in comes out, and known heads are not read again."""

import pytest

from accelserve.entry_script.framing import Frame, FrameKind
from accelserve.entry_script.heads import (
    RequestHeads,
    ResponseHeads,
    failed_frame,
    ready_frame,
    settings_frame,
    settings_of,
    start_of,
)
from accelserve.entry_script.messages import ScriptRequest, ScriptResponse, WorkerFailed, WorkerReady, WorkerSettings

REQUEST = ScriptRequest("POST", "/score", b"a=\xff&b=%20", (("x-a", "1"), ("x-a", "caf\xe9")), b"\xff\xd8")
RESPONSE = ScriptResponse(503, b"busy", "text/html; charset=utf-8", (("x-b", "2"),), 123, True, "Traceback: \U0001f600")
SETTINGS = WorkerSettings("/app/score.py", "/app", "/models", {"m": "/models/m"}, score_key="hidden", nan="refuse")


def test_a_request_arrives_as_it_was():
    sent = RequestHeads().frame(5, REQUEST)
    assert (sent.kind, sent.request_id, sent.body) == (FrameKind.REQUEST, 5, REQUEST.body)
    assert RequestHeads().request(sent) == REQUEST


def test_a_response_arrives_as_it_was():
    sent = ResponseHeads().frame(5, RESPONSE)
    assert (sent.kind, sent.request_id, sent.run_ns) == (FrameKind.RESPONSE, 5, 123)
    assert ResponseHeads().response(sent) == RESPONSE


def test_a_known_head_is_kept_on_both_sides():
    heads = RequestHeads()
    first, second = heads.frame(1, REQUEST), heads.frame(2, REQUEST._replace(body=b"other"))
    assert first.head is second.head
    assert heads.request(first).headers is heads.request(second).headers


@pytest.mark.parametrize("size", [3, 10_000])
def test_many_or_long_heads_do_not_fill_the_memory(size):
    heads = RequestHeads()
    for number in range(1000):
        request = REQUEST._replace(headers=(("x", str(number) * size),))
        assert heads.request(heads.frame(number, request)) == request
    assert len(heads._known) == len(heads._read) == (256 if size == 3 else 0)


def test_settings_and_both_beginnings_arrive_as_they_were():
    ready = WorkerReady("rawhttp", True, {"2": "{}"})
    failed = WorkerFailed("no run()", "Traceback ...")
    assert settings_of(settings_frame(SETTINGS)) == SETTINGS
    assert start_of(ready_frame(ready)) == ready
    assert start_of(failed_frame(failed)) == failed


@pytest.mark.parametrize(
    "head",
    [
        b"{",
        b"7",
        b'{"shape":"text"}',
        b'{"shape":"text","concurrent":false,"swagger":[]}',
        b'{"shape":"text","concurrent":false,"swagger":{"2":7}}',
        b'{"message":7,"traceback":""}',
        b'{"message":"m","traceback":[]}',
    ],
)
@pytest.mark.parametrize("kind", [FrameKind.READY, FrameKind.FAILED, FrameKind.REQUEST])
def test_a_beginning_of_another_shape_is_none(kind, head):
    with pytest.raises(ValueError, match="the worker began with"):
        start_of(Frame(kind, 0, head))


@pytest.mark.parametrize(
    "head",
    [
        b'[200,"text/plain",[],false]',
        b'["200","text/plain",[],false,""]',
        b'[200,7,[],false,""]',
        b'[200,"text/plain",7,false,""]',
        b'[200,"text/plain",["a"],false,""]',
        b'[200,"text/plain",[["a",7]],false,""]',
        b'[200,"text/plain",[],1,""]',
        b'[200,"text/plain",[],false,["report"]]',
    ],
)
def test_a_response_of_another_shape_is_none(head):
    with pytest.raises(ValueError, match=r"not (the head|header lines)"):
        ResponseHeads().response(Frame(FrameKind.RESPONSE, 1, head, b""))


def test_no_repr_shows_the_key():
    assert "hidden" not in repr(SETTINGS)


def test_a_worker_that_begins_with_something_else_is_a_value_error():
    with pytest.raises(ValueError, match="began with a frame of kind RESPONSE"):
        start_of(ResponseHeads().frame(1, RESPONSE))


@pytest.mark.parametrize("head", [b"7", b"[1,2]", b"{", b"null"])
def test_a_head_that_is_none_is_a_value_error(head):
    with pytest.raises(ValueError, match="not the head of"):
        ResponseHeads().response(Frame(FrameKind.RESPONSE, 1, head))


def test_a_header_that_is_no_text_is_a_value_error():
    with pytest.raises(ValueError, match="cannot be told"):
        ResponseHeads().frame(1, RESPONSE._replace(headers=(("x", "\ud800"),)))

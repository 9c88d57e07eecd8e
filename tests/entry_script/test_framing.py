"""Frames: every way to cut the bytes gives the same frames."""

import itertools
import struct

import pytest

from accelserve.entry_script.framing import Frame, FrameKind, FrameReader, frame_buffers

SMALL = Frame(FrameKind.REQUEST, 7, b'["POST"]', b"body", None)
EMPTY = Frame(FrameKind.REQUEST, 8, b"[]")
LARGE = Frame(FrameKind.RESPONSE, 2**32 - 1, b'{"status":200}', bytes(range(256)) * 400, 12_345)


def wire(*frames: Frame) -> bytes:
    return b"".join(itertools.chain.from_iterable(map(frame_buffers, frames)))


def test_the_prefix_has_the_documented_layout():
    frame = Frame(FrameKind.RESPONSE, 3, b"{}", b"abc", 5)
    assert wire(frame) == struct.pack("<BxxxIIQQ", 5, 3, 2, 3, 5) + b"{}abc"
    assert wire(EMPTY)[20:28] == b"\xff" * 8  # no run


@pytest.mark.parametrize("step", [1, 7, 28, 30, 4096, 10**6])
def test_frames_come_out_as_they_went_in_however_they_are_cut(step):
    data, reader, seen = wire(SMALL, EMPTY, LARGE, SMALL), FrameReader(), []
    for start in range(0, len(data), step):
        seen += reader.feed(data[start : start + step])
    assert seen == [SMALL, EMPTY, LARGE, SMALL]


def test_who_reads_what_is_wanted_gets_a_large_body_without_a_copy():
    reader, data, at, parts = FrameReader(), wire(LARGE), 0, []
    frames: list[Frame] = []
    while not frames:
        parts.append(data[at : at + reader.wanted])
        at += len(parts[-1])
        frames = reader.feed(parts[-1])
    assert frames[0].body is parts[-1]
    assert len(parts) == 3


def test_a_body_is_not_copied_to_be_sent():
    assert frame_buffers(LARGE)[1] is LARGE.body


def test_no_more_is_asked_for_at_once_than_a_piece():
    reader = FrameReader()
    reader.feed(struct.pack("<BxxxIIQQ", 5, 1, 2, 2**63, 0) + b"{}")
    assert reader.wanted == 64 * 2**20


@pytest.mark.parametrize("prefix", [struct.pack("<BxxxIIQQ", 9, 1, 2, 0, 0), struct.pack("<BxxxIIQQ", 4, 1, 0, 4, 0)])
def test_bytes_that_are_no_frame_are_refused(prefix):
    with pytest.raises(ValueError, match="not a frame"):
        FrameReader().feed(prefix)


def test_what_a_script_printed_into_the_socket_is_no_frame():
    with pytest.raises(ValueError, match="not a frame"):
        FrameReader().feed(b"hello, this is a line that somebody printed\n")

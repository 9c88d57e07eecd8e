"""Frames between the server and a worker: a fixed prefix, a head in JSON, a body as it is.

A body may have hundreds of megabytes; whoever accepts requests sets the limit. Nothing is joined or copied to be sent,
and a body that arrives in one piece of its own stays that piece.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

_PREFIX = Struct("<BxxxIIQQ")  # kind, request id, bytes of the head, bytes of the body, run_ns
_NO_RUN = 2**64 - 1
_TOGETHER_BYTES = 16 * 1024  # copying so much out of one piece is cheaper than asking the kernel once more
_PIECE_BYTES = 64 * 2**20  # of what the other side announces, no more is reserved at a time


class FrameKind(IntEnum):
    SETTINGS = 1
    READY = 2
    FAILED = 3
    REQUEST = 4
    RESPONSE = 5
    AHEAD = 6  # a request that is begun only with a permission, which may be taken back


_KINDS = {int(kind): kind for kind in FrameKind}


class Frame(NamedTuple):
    """request_id: chosen by the server, repeated by the worker; 0 where there is none. run_ns: of a response only."""

    kind: FrameKind
    request_id: int
    head: bytes
    body: bytes = b""
    run_ns: int | None = None


def frame_buffers(frame: Frame) -> list[bytes]:
    """What goes onto the wire, in order, for `sendmsg` or `writelines`."""
    kind, request_id, head, body, run_ns = frame
    prefix = _PREFIX.pack(kind, request_id, len(head), len(body), _NO_RUN if run_ns is None else run_ns)
    return [prefix + head, body] if body else [prefix + head]


class FrameReader:
    """Takes bytes as they come, gives the frames that are complete.

    Memory is reserved for what has come, not for what is announced. Raises ValueError where the bytes cannot be a
    frame; nothing after that can be read.
    """

    def __init__(self) -> None:
        self._part: Callable[[bytes], Sequence[Frame]] = self._on_prefix  # takes the part under way once it is whole
        self._missing = _PREFIX.size
        self._pieces: list[bytes] = []
        self._prefix: tuple[FrameKind, int, int, int, int | None] = (FrameKind.SETTINGS, 0, 0, 0, None)
        self._head = b""

    @property
    def wanted(self) -> int:
        """How many bytes to ask for next: who reads just so many gets a large body without a copy."""
        return min(self._missing, _PIECE_BYTES)

    def feed(self, data: bytes) -> list[Frame]:
        frames: list[Frame] = []
        start, size = 0, len(data)
        while size - start >= self._missing:
            end = start + self._missing
            frames += self._part(self._whole(data[start:end]))  # all of `bytes` is no copy
            start = end
        if start < size:
            self._pieces.append(data[start:])
            self._missing -= size - start
        return frames

    def _whole(self, piece: bytes) -> bytes:
        if not self._pieces:
            return piece
        self._pieces.append(piece)
        whole = b"".join(self._pieces)
        self._pieces.clear()
        return whole

    def _expect(self, part: Callable[[bytes], Sequence[Frame]], size: int) -> tuple[Frame, ...]:
        self._part, self._missing = part, size
        return ()

    def _on_prefix(self, part: bytes) -> Sequence[Frame]:
        number, request_id, head_bytes, body_bytes, run_ns = _PREFIX.unpack(part)
        kind = _KINDS.get(number)
        if kind is None or not head_bytes:
            raise ValueError(f"not a frame: kind {number}, a head of {head_bytes} bytes")
        self._prefix = (kind, request_id, head_bytes, body_bytes, None if run_ns == _NO_RUN else run_ns)
        if head_bytes + body_bytes <= _TOGETHER_BYTES:
            return self._expect(self._on_both, head_bytes + body_bytes)
        return self._expect(self._on_head, head_bytes)

    def _on_both(self, part: bytes) -> Sequence[Frame]:
        head_bytes = self._prefix[2]
        return self._finished(part[:head_bytes], part[head_bytes:])

    def _on_head(self, part: bytes) -> Sequence[Frame]:
        self._head = part
        body_bytes = self._prefix[3]
        return self._expect(self._on_body, body_bytes) if body_bytes else self._finished(part, b"")

    def _on_body(self, part: bytes) -> Sequence[Frame]:
        return self._finished(self._head, part)

    def _finished(self, head: bytes, body: bytes) -> Sequence[Frame]:
        kind, request_id, _, _, run_ns = self._prefix
        self._expect(self._on_prefix, _PREFIX.size)
        self._head = b""
        return (Frame(kind, request_id, head, body, run_ns),)

"""A socket and a loop's clock that tests hold in their hands, for a protocol that thinks they are real."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any


class FakeTransport(asyncio.Transport):
    """Keeps what is written; tells the protocol of its end when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.ended = self.aborted = self.paused = False
        self.unsent_bytes = 0

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after close"
        assert not self.ended, "written after write_eof"
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent_bytes


class Wire(FakeTransport):
    """Hands bytes to its protocol as a loop does: into the protocol's own buffer if it has one, none while paused.

    full_bytes: when so many are written, the protocol is told to pause, as by a client that reads no more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.full_bytes: int | None = None
        self._full = False
        self._protocol: asyncio.BaseProtocol | None = None
        self._unread: deque[bytes] = deque()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.full_bytes is not None and len(self.written) >= self.full_bytes:
            self._pause_writing()

    def stop_reading(self) -> None:
        """The client reads no more, and all between is full."""
        self.full_bytes = len(self.written)
        self._pause_writing()

    def read_on(self) -> None:
        """The client reads again, without end."""
        self.full_bytes, self._full = None, False
        if not self.closed:
            self.get_protocol().resume_writing()

    def _pause_writing(self) -> None:
        if not self._full:
            self._full = True
            self.get_protocol().pause_writing()

    def send(self, piece: bytes) -> None:
        """The client sends, whether anybody reads or not."""
        self._unread.append(piece)
        self.pump()

    @property
    def unread_bytes(self) -> int:
        """What waits in the kernel because the protocol does not read."""
        return sum(map(len, self._unread))

    def pump(self) -> bool:
        """Hand over what may be. Returns whether anything was."""
        pumped = False
        while self._unread and not self.paused and not self.closed:
            self._deliver(self._unread.popleft())
            pumped = True
        return pumped

    def _deliver(self, piece: bytes) -> None:
        protocol = self.get_protocol()
        if not isinstance(protocol, asyncio.BufferedProtocol):
            assert isinstance(protocol, asyncio.Protocol)
            protocol.data_received(piece)
            return
        into = memoryview(protocol.get_buffer(len(piece)))
        size = min(len(into), len(piece))
        into[:size] = piece[:size]
        if size < len(piece):
            self._unread.appendleft(piece[size:])
        protocol.buffer_updated(size)


class FakeTimer:
    def __init__(self, due: float, call: Callable[[], None]) -> None:
        self.due, self.call, self.cancelled = due, call, False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """Time moves when the test says so; tasks run on the real loop."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[FakeTimer] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio.get_running_loop(), name)

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[..., None], *arguments: Any) -> FakeTimer:
        self.timers.append(FakeTimer(self.now + delay, lambda: call(*arguments)))
        return self.timers[-1]

    def create_task(self, coroutine: Awaitable[None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(coroutine)  # type: ignore[arg-type]

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while due := [t for t in self.timers if not t.cancelled and t.due <= until]:
            first = min(due, key=lambda t: t.due)
            self.timers.remove(first)
            self.now = max(self.now, first.due)
            first.call()
        self.now = until

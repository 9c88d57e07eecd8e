"""The deadlines of one connection: what is waited for, and whether the client still takes its answer."""

import asyncio
import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from enum import Enum, auto


class Deadline:
    """One deadline that moves often and passes seldom.

    Moving it later costs no timer: the timer that runs rings early, sees, and is set again for the rest.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def set(self, seconds: float) -> None:
        """From now on, `passed` is called once after `seconds`."""
        at = self._at = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._arm(at, seconds)

    def close(self) -> None:
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float, seconds: float) -> None:
        self._timer_at = at
        self._timer = self._loop.call_later(seconds, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._at is None:
            return
        left = self._at - self._loop.time()
        if left > 0:
            self._arm(self._at, left)
        else:
            self._at = None
            self._passed()


class Wait(Enum):
    """What a connection's one deadline is for."""

    NOTHING = auto()
    CONNECT = auto()
    HEAD = auto()
    BODY = auto()
    IDLE = auto()
    LINGER = auto()
    GOODBYE = auto()


_NOTHING = Wait.NOTHING  # looked up in its class for each request it costs 0.05 us


class Patience(Deadline):
    """A connection's one deadline, and what it is for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        super().__init__(loop, passed)
        self.what = _NOTHING

    def wait(self, what: Wait, seconds: float) -> None:
        self.what = what
        self.set(seconds)

    def rest(self) -> None:
        """Nothing is waited for."""
        self.what = _NOTHING
        self._at = None


class WriteWatch:
    """Aborts a connection whose client takes nothing of what is written to it for `silence_s`.

    outlet: what lies below the transport, where that has a buffer of its own, as under TLS.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        silence_s: float,
        outlet: "Outlet | None" = None,
    ) -> None:
        self._transport = transport
        self._silence_s = silence_s
        self._outlet = outlet
        self._seen: tuple[int, ...] = ()
        self._deadline = Deadline(loop, self._look)

    def start(self) -> None:
        self._seen = self._state()
        if any(self._seen[:2]):
            self._deadline.set(self._silence_s)

    def stop(self) -> None:
        self._deadline.close()

    def _state(self) -> tuple[int, ...]:
        """(unsent bytes here, and below; what tells that the client takes some)."""
        here = self._transport.get_write_buffer_size()
        return (here, 0, 0) if self._outlet is None else (here, self._outlet.unsent_bytes(), self._outlet.taken_bytes())

    def _look(self) -> None:
        if self._state() == self._seen:
            self._transport.abort()
        else:
            self.start()


class Outlet:
    """A connection's socket, asked what the client has taken. All 0 once it is closed."""

    _TAKEN_AT = 120  # struct tcp_info, linux/tcp.h: tcpi_bytes_acked

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def unsent_bytes(self) -> int:
        """In the kernel, as long as something is above it too."""
        return self._ask(lambda descriptor: fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))

    def unread_bytes(self) -> int:
        """What the kernel holds of a request that the loop has not read yet."""
        return self._ask(lambda descriptor: fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))

    def taken_bytes(self) -> int:
        """Since the connection was made."""
        connected = self._transport.get_extra_info("socket")
        try:
            told = connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, self._TAKEN_AT + 8)
        except (OSError, ValueError, AttributeError):
            return 0
        return int.from_bytes(told[self._TAKEN_AT :], sys.byteorder)

    def _ask(self, question: Callable[[int], bytes]) -> int:
        connected = self._transport.get_extra_info("socket")
        try:
            return int.from_bytes(question(connected.fileno()), sys.byteorder)
        except (OSError, ValueError, AttributeError):
            return 0

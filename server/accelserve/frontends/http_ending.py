"""The end of a connection: closed so that its last answer can be read, and not kept open by a client that is silent."""

import asyncio

from uvicorn.protocols.http.flow_control import FlowControl

from accelserve.frontends.http_policy import HttpLimits
from accelserve.frontends.http_timers import Outlet, Patience, Wait, WriteWatch

_GOODBYE_S = 1.0  # for a client's TLS goodbye, once it has taken all


class Ending:
    """Closes one connection, whose deadline it sets from then on, and aborts it when its client takes nothing any more.

    discarded_bytes: that came when nothing was read any more.
    """

    __slots__ = ("_flow", "_is_tls", "_limits", "_outlet", "_patience", "_transport", "_unread", "discarded_bytes")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        flow: FlowControl,
        patience: Patience,
        limits: HttpLimits,
        is_tls: bool,
    ) -> None:
        self.discarded_bytes = 0
        self._transport = transport
        self._flow = flow
        self._patience = patience
        self._limits = limits
        self._is_tls = is_tls
        self._outlet = Outlet(transport)
        self._unread = WriteWatch(loop, transport, limits.body_timeout_s, self._outlet if is_tls else None)

    def close(self) -> None:
        """At once. Under TLS the transport waits for the client's goodbye, which many clients never say."""
        self._patience.rest()
        self._transport.close()
        self._unread.start()
        if self._is_tls:
            self._patience.wait(Wait.GOODBYE, _GOODBYE_S)

    def linger(self) -> None:
        """After the last answer to a client that may be sending, whom to close at once would cost that answer."""
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._flow.resume_reading()
        self._patience.wait(Wait.LINGER, self._limits.linger_s)

    def discard(self, size_bytes: int) -> None:
        """Bytes that nobody reads: so many, and the connection closes, or is read no further while answers are owed."""
        self.discarded_bytes += size_bytes
        if self.discarded_bytes <= self._limits.linger_bytes:
            return
        if self._patience.what is Wait.LINGER:
            self.close()
        else:
            self._flow.pause_reading()

    def goodbye_overdue(self) -> None:
        if self._outlet.unsent_bytes():
            self._patience.wait(Wait.GOODBYE, _GOODBYE_S)
        else:
            self._transport.abort()

    def is_read(self) -> bool:
        """Whether the kernel holds nothing of a request that the loop has not read yet."""
        return not self._outlet.unread_bytes()

    def watch_reader(self) -> None:
        """What is written waits: see that the client takes it."""
        self._unread.start()

    def trust_reader(self) -> None:
        self._unread.stop()

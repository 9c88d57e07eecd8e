"""Large request bodies, received where they stay.

A transport hands an ordinary protocol fresh bytes for each read, up to 256 KB with uvloop, which somebody then joins:
each byte is copied twice more and passes the cache three times. A connection that sends large bodies is read by a
`BodyReader` from the first of them on: recv writes a body straight into the bytes that its handler gets, and anything
else by way of one small piece of memory that all connections share.

A body's memory is malloc's own. Told to keep what is freed (`accelserve.allocator`), malloc gives the memory of the
last body to the next one without a page fault, as a pool would, and a body is free when its last reference goes, be it
a tensor's: nobody has to say so, and nobody sees another's bytes. Measured on one core, 600 KB bodies in a bare server:
joined 121-138 µs, so received 79-80, into a pool of mapped buffers 73-83, of which the kernel's copy is 57-62.
"""

import asyncio
import ctypes
from collections.abc import Callable
from typing import Protocol

LARGE_BODY_BYTES = 2**15  # a body above it, which has not come with its head, is worth a reader
_SCRATCH_BYTES = 2**16  # a head and a small body come in one read; of a large body no more than this is copied twice
_HEAD_BYTES = 2**12  # ... and no more than this where the last body was large, so that the next one may be too
_AHEAD_BYTES = 2**29
_WRITABLE = 0x200  # PyBUF_WRITE

_Allocate = Callable[[None, int], bytes]
_Address = Callable[[bytes], int]
_View = Callable[[int, int, int], "memoryview[int]"]


class BodyOwner(Protocol):
    """The connection for which a reader reads: what an `asyncio.Protocol` has, and two questions more."""

    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool | None: ...

    def connection_lost(self, exc: Exception | None) -> None: ...

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def body_growing(self) -> None:
        """A part of the body came, and there is more to come: the client is not silent."""
        ...

    def body_received(self, body: bytes) -> None:
        """All of the body that was expected. What comes next is data again."""
        ...


class BodyMemory:
    """What the connections of one event loop receive into.

    ahead_bytes: how much may be set aside, over all connections, for what clients have announced and not sent yet. It
    is address space that nothing has touched, but that too has an end.
    """

    def __init__(self, ahead_bytes: int = _AHEAD_BYTES) -> None:
        self.scratch = memoryview(bytearray(_SCRATCH_BYTES))  # used between two callbacks of one read only
        self.scratch_for_head = self.scratch[:_HEAD_BYTES]
        self._left_bytes = ahead_bytes
        # CPython's own way to receive into bytes (its socket.recv does it): "may be modified if just created with
        # PyBytes_FromStringAndSize(NULL, n)". bytes(n) and bytearray(n) are zeroed first, which costs as much again.
        self._allocate: _Allocate = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
            ("PyBytes_FromStringAndSize", ctypes.pythonapi)
        )
        self._address: _Address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(
            ("PyBytes_AsString", ctypes.pythonapi)
        )
        self._view: _View = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)(
            ("PyMemoryView_FromMemory", ctypes.pythonapi)
        )

    def take(self, size_bytes: int) -> "tuple[bytes, memoryview[int]] | None":
        """Bytes whose content is not set yet, and a way to set it, which must not outlive them; None if none is left.

        Whoever takes gives back. The bytes are shown to nobody before the last of them is set.
        """
        if size_bytes > self._left_bytes:
            return None
        try:
            body = self._allocate(None, size_bytes)
        except MemoryError:
            return None
        self._left_bytes -= size_bytes
        return body, self._view(self._address(body), size_bytes, _WRITABLE)

    def give_back(self, size_bytes: int) -> None:
        """The bytes are complete, or forgotten."""
        self._left_bytes += size_bytes


class BodyReader(asyncio.BufferedProtocol):
    """Reads for a connection from its first large body on.

    transport: of which it becomes the protocol in the first `expect`, for good: to go back would cost system calls at
    each body, and who sends one large body sends more.
    """

    __slots__ = ("_body", "_filled", "_memory", "_owner", "_reads", "_size", "_transport", "_view")

    def __init__(self, owner: BodyOwner, transport: asyncio.Transport, memory: BodyMemory) -> None:
        self._owner = owner
        self._transport = transport
        self._memory = memory
        self._reads = False
        self._body = b""
        self._view: memoryview[int] | None = None  # of the body that is coming
        self._filled = self._size = 0

    def expect(self, size_bytes: int, begun: "bytes | memoryview[int]") -> bool:
        """From now on a body comes, of which `begun` came already: less than all of it, and nothing behind it.

        It ends in `body_received`, in `forget`, or in `connection_lost`. False: there is no memory to set aside, and
        the owner collects the body by itself, as it comes.
        """
        taken = self._memory.take(size_bytes)
        if taken is None:
            return False
        self._body, self._view = taken
        self._size, self._filled = size_bytes, len(begun)
        self._view[: self._filled] = begun
        if not self._reads:
            self._reads = True
            self._transport.set_protocol(self)
        return True

    def forget(self) -> None:
        """The body that is coming is not wanted any more: what still comes of it is data."""
        if self._view is not None:
            self._close_body()

    def _close_body(self) -> bytes:
        body, self._body, self._view = self._body, b"", None
        self._memory.give_back(self._size)
        return body

    # --- the transport's callbacks

    def get_buffer(self, sizehint: int) -> "memoryview[int]":
        if self._view is None:
            return self._memory.scratch_for_head if self._size > _SCRATCH_BYTES else self._memory.scratch
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._view is None:
            self._size = 0  # unless this begins another large body
            self._owner.data_received(bytes(self._memory.scratch[:nbytes]))
            return
        self._filled += nbytes
        if self._filled < self._size:
            self._owner.body_growing()
        else:
            self._owner.body_received(self._close_body())

    def eof_received(self) -> bool | None:
        return self._owner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.forget()
        self._owner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._owner.pause_writing()

    def resume_writing(self) -> None:
        self._owner.resume_writing()

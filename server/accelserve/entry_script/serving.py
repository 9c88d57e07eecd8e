"""Frames from the server's socket, answers into it: one after the other, or many at a time where run() is async."""

import asyncio
import os
import socket
from collections import deque

from accelserve.entry_script.framing import Frame, FrameKind, FrameReader, frame_buffers
from accelserve.entry_script.heads import RequestHeads, ResponseHeads
from accelserve.entry_script.permits import take_permit
from accelserve.entry_script.runner import Runner

_MOST_BUFFERS = 64  # that one sendmsg takes


def read_first(sock: socket.socket) -> Frame | None:
    """The frame that the server begins with; None if it went away."""
    reader = FrameReader()
    while data := sock.recv(reader.wanted, socket.MSG_WAITALL):
        frames = reader.feed(data)
        if frames:
            return frames[0]
    return None


def send(sock: socket.socket, frame: Frame) -> None:
    """All of it. Raises OSError if nobody listens any more."""
    buffers = frame_buffers(frame)
    sent = sock.sendmsg(buffers)
    for buffer in buffers:
        if sent < len(buffer):
            sock.sendall(memoryview(buffer)[sent:])
        sent = max(0, sent - len(buffer))


def serve(sock: socket.socket, runner: Runner, permits: int) -> None:
    """Answer in order until the server closes the socket. Raises OSError, or ValueError for what is no frame.

    permits: as of `permits.take_permit`; what was given ahead and recalled is passed over.
    """
    reader, requests, responses = FrameReader(), RequestHeads(), ResponseHeads()
    answer = runner.answer
    while data := sock.recv(reader.wanted, socket.MSG_WAITALL):
        for frame in reader.feed(data):
            if frame.kind is FrameKind.AHEAD and not take_permit(permits):
                continue
            send(sock, responses.frame(frame.request_id, answer(requests.request(frame))))


class AsyncServing:
    """The same for an async run(): each request is a task, and answers leave as they come."""

    def __init__(self, sock: socket.socket, runner: Runner) -> None:
        self._sock = sock
        self._runner = runner
        self._requests, self._responses = RequestHeads(), ResponseHeads()
        self._unsent: deque[memoryview] = deque()
        self._over = False

    async def serve(self) -> None:
        """Until the server closes the socket; what is under way then is cancelled. Raises an ExceptionGroup."""
        reader, self._loop = FrameReader(), asyncio.get_running_loop()
        # A child that comes back from run() would run this loop too, and share its poll with it.
        os.register_at_fork(after_in_child=lambda: self._loop.call_soon(os._exit, 1))
        self._sock.setblocking(False)
        async with asyncio.TaskGroup() as tasks:
            while data := await self._loop.sock_recv(self._sock, reader.wanted):
                for frame in reader.feed(data):
                    tasks.create_task(self._answer(frame))
            self._over = True
            raise EOFError

    async def _answer(self, frame: Frame) -> None:
        response = await self._runner.answer_async(self._requests.request(frame))
        if not self._over:
            self._send(frame_buffers(self._responses.frame(frame.request_id, response)))

    def _send(self, buffers: list[bytes]) -> None:
        """All of it, and in one piece: it waits in no task, since a script can cancel its own in mid-answer."""
        others_wait = bool(self._unsent)
        self._unsent.extend(map(memoryview, buffers))
        if not others_wait and not self._is_all_sent():
            self._loop.add_writer(self._sock, self._writable)

    def _writable(self) -> None:
        if self._is_all_sent():
            self._loop.remove_writer(self._sock)

    def _is_all_sent(self) -> bool:
        """Once the socket has been given what it takes now."""
        unsent = self._unsent
        try:
            while unsent:
                sent = self._sock.sendmsg([unsent[at] for at in range(min(_MOST_BUFFERS, len(unsent)))])
                while unsent and sent >= len(unsent[0]):
                    sent -= len(unsent.popleft())
                if unsent:
                    unsent[0] = unsent[0][sent:]
        except BlockingIOError:
            return False
        except OSError:  # the server has gone
            unsent.clear()
        return True

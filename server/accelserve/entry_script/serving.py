"""Frames from the server's socket, answers into it: one after the other, or many at a time where run() is async."""

import asyncio
import socket

from accelserve.entry_script.framing import Frame, FrameKind, FrameReader, frame_buffers
from accelserve.entry_script.heads import RequestHeads, ResponseHeads
from accelserve.entry_script.permits import take_permit
from accelserve.entry_script.runner import Runner


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
        self._sending = asyncio.Lock()

    async def serve(self) -> None:
        """Until the server closes the socket; what is under way then is cancelled. Raises an ExceptionGroup."""
        reader, loop = FrameReader(), asyncio.get_running_loop()
        self._sock.setblocking(False)
        async with asyncio.TaskGroup() as tasks:
            while data := await loop.sock_recv(self._sock, reader.wanted):
                for frame in reader.feed(data):
                    tasks.create_task(self._answer(frame))
            raise EOFError

    async def _answer(self, frame: Frame) -> None:
        response = await self._runner.answer_async(self._requests.request(frame))
        buffers = frame_buffers(self._responses.frame(frame.request_id, response))
        loop = asyncio.get_running_loop()
        async with self._sending:
            for buffer in buffers:
                await loop.sock_sendall(self._sock, buffer)

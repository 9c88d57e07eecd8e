"""One worker process as the event loop sees it: frames to it and from it, its output, its end."""

import asyncio
import logging
import os
import select
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from accelserve.clock import Clock
from accelserve.cpus import give_way
from accelserve.entry_script.framing import Frame, FrameReader
from accelserve.entry_script.launch import kill_group, worker_command
from accelserve.entry_script.output import OutputLines
from accelserve.entry_script.permits import take_permit
from accelserve.process_ends import signal_name

logger = logging.getLogger("accelserve.script")

_READ_BYTES = 2**16
_MOST_READ_BYTES = 2**20
_READS_AT_A_TIME = 16  # then others have their turn
_SEND_BUFFER_BYTES = 2**20  # a request ahead fits in, so that the worker finds it without the loop
_FAREWELL_S = 0.5  # for a worker that has closed its end
_MOST_BUFFERS = 64  # that one sendmsg takes


class WorkerOwner(Protocol):
    """Who is told of a worker, by its number."""

    def worker_told(self, number: int, frame: Frame) -> None: ...

    def worker_ended(self, number: int, why: str) -> None:
        """After the last frame that came from it."""
        ...


class Worker(Protocol):
    """A worker, as the pool sees it."""

    pid: int

    def send(self, buffers: Sequence[bytes]) -> None: ...

    def permit(self) -> None:
        """One of the requests ahead, which it takes in order, may be begun."""
        ...

    def recall(self, most: int) -> int:
        """Take back the permissions that it has not made use of: so many of its requests, the last, it passes over.

        most: it has been given; a script that has got hold of the counter may have written more.
        """
        ...

    def kill(self, why: str) -> None:
        """At once, with all that it has started. The owner is told of the end."""
        ...

    def close(self) -> None:
        """Let it end by itself."""
        ...


class WorkerProcess:
    """Started by the constructor, on the loop's own thread: a worker dies with the thread that has started it.

    environ: in its environment beside the server's own. Its end of the socket and the permissions to begin what it is
    given ahead are all that it inherits; its output comes through pipes.
    """

    def __init__(self, number: int, environ: Mapping[str, str], owner: WorkerOwner, clock: Clock) -> None:
        self._number = number
        self._owner = owner
        self._now_ns = clock.now_ns
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._unsent: deque[memoryview] = deque()
        self._killed_for = ""
        self._is_garbled = False  # it sent what is no answer, and nothing behind that can be read
        self._outgoing: list[bytes] = []
        self._permits = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._process, self._socket = _start(environ, self._permits)
        except OSError:
            os.close(self._permits)
            raise
        self.pid = self._process.pid
        give_way(self.pid)
        self._exit = os.pidfd_open(self.pid)
        self._loop.add_reader(self._exit, self._exited)
        self._loop.add_reader(self._socket, self._readable)
        self._outputs: dict[int, OutputLines] = {}
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._outputs[stream.fileno()] = OutputLines()
            self._loop.add_reader(stream.fileno(), self._printed, stream.fileno())

    def send(self, buffers: Sequence[bytes]) -> None:
        """Nothing is waited for; what the socket does not take now follows when it does."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += buffers

    def permit(self) -> None:
        os.eventfd_write(self._permits, 1)

    def recall(self, most: int) -> int:
        count = 0
        while count < most and take_permit(self._permits):
            count += 1
        return count

    def _flush(self) -> None:
        buffers, self._outgoing = self._outgoing, []
        if self._unsent:
            self._unsent.extend(map(memoryview, buffers))
            return
        try:
            sent = self._socket.sendmsg(buffers[:_MOST_BUFFERS])
        except BlockingIOError:
            sent = 0
        except OSError:  # it has died, which will be told
            return
        if sent < sum(map(len, buffers)):
            self._unsent.extend(map(memoryview, buffers))
            self._sent(sent)
            self._loop.add_writer(self._socket, self._writable)

    def kill(self, why: str) -> None:
        if not self._killed_for:
            self._killed_for = why
            kill_group(self.pid)

    def close(self) -> None:
        with suppress(OSError):  # it has ended
            self._socket.shutdown(socket.SHUT_WR)

    # -- the loop's callbacks

    def _writable(self) -> None:
        try:
            self._sent(self._socket.sendmsg([self._unsent[at] for at in range(min(_MOST_BUFFERS, len(self._unsent)))]))
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
        if not self._unsent:
            self._loop.remove_writer(self._socket)

    def _sent(self, size_bytes: int) -> None:
        while size_bytes:
            first = self._unsent.popleft()
            if len(first) > size_bytes:
                self._unsent.appendleft(first[size_bytes:])
                return
            size_bytes -= len(first)

    def _readable(self) -> None:
        if not self._read(_READS_AT_A_TIME):
            self._loop.remove_reader(self._socket)
            self._loop.call_later(_FAREWELL_S, self._left)

    def _read(self, most: int) -> bool:
        """Hand on what has come. False when nothing comes any more."""
        if self._is_garbled:
            return False
        for _ in range(most):
            try:
                size = max(_READ_BYTES, min(self._reader.wanted, _MOST_READ_BYTES))
                data = self._socket.recv(size)
                if not data:
                    return False
                for frame in self._reader.feed(data):
                    self._owner.worker_told(self._number, frame)
            except BlockingIOError:
                return True
            except OSError:
                return False
            except ValueError as error:
                self._is_garbled = True
                self.kill(f"it sent what is no answer ({error})")
                return False
            if len(data) < size:
                return True
        return True

    def _left(self) -> None:
        if self._exit >= 0:
            self.kill("it closed its connection to the server")

    def _printed(self, stream: int) -> None:
        if not self._take_output(stream):
            self._loop.remove_reader(stream)

    def _take_output(self, stream: int) -> bool:
        """Log what has been printed. False when nothing comes any more."""
        try:
            data = os.read(stream, _READ_BYTES)
        except BlockingIOError:
            return True
        lines = self._outputs[stream]
        for line in lines.feed(data, self._now_ns()) if data else lines.end():
            logger.info("%s", line, extra={"pid": self.pid})
        return bool(data)

    def _exited(self) -> None:
        """All that it has said is heard first. What it has started ends with it."""
        self._loop.remove_reader(self._exit)
        os.close(self._exit)
        self._exit = -1
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        while self._read(1) and _has_more(self._socket):
            pass
        kill_group(self.pid)
        for stream in self._outputs:
            self._loop.remove_reader(stream)
            for _ in range(_READS_AT_A_TIME):
                if not self._take_output(stream) or not _has_more(stream):
                    break
        with self._process as ended:  # closes the pipes
            code = ended.wait()
        self._socket.close()
        os.close(self._permits)
        self._owner.worker_ended(self._number, self._killed_for or _ended_with(code))


def _start(environ: Mapping[str, str], permits: int) -> tuple[subprocess.Popen[bytes], socket.socket]:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        try:
            process = subprocess.Popen(
                worker_command(theirs.fileno(), permits),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(), permits),
                process_group=0,  # Ctrl-C at a terminal is for the server, and what a script starts ends with it
                env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
            )
        except OSError:
            ours.close()
            raise
    return process, ours


def _has_more(stream: int | socket.socket) -> bool:
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    return any(event & select.POLLIN for _, event in poll.poll(0))


def _ended_with(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    hint = " (somebody else's, or the machine had no memory left)" if -code == signal.SIGKILL else ""
    return f"it was ended by {signal_name(-code)}{hint}"

"""A server that a supervisor started: what it inherits, and the line on which it is asked.

The line is one end of a pair of packet sockets. Each packet from the supervisor is a question, whatever is in it; the
answer is one packet, a JSON object: `ready` (true or false), `reason` (why not), `in_flight` (requests under way).
"""

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

MOST_BYTES = 4096  # of an answer


@dataclass(frozen=True, slots=True)
class Supervised:
    """line, http: inherited file descriptors, of the line and of a listening socket that others accept from too.

    parent: the supervisor's process number.
    """

    line: int
    http: int
    parent: int

    def __str__(self) -> str:
        return f"{self.line}:{self.http}:{self.parent}"


def parse_supervised(text: str) -> Supervised:
    """`LINE:HTTP:PARENT`. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,9})", text)
    if not found:
        raise ValueError("want three numbers, LINE:HTTP:PARENT, as a supervisor gives them")
    return Supervised(*map(int, found.groups()))


class Line:
    """Answers the supervisor from the event loop: a loop that is stuck does not answer, which is what he wants to know.

    report: what is told, made anew for each question.
    """

    def __init__(self, descriptor: int, report: Callable[[], Awaitable[dict[str, object]]]) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._report = report
        self._answering: asyncio.Task[None] | None = None

    def open(self) -> None:
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self._asked)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        if self._answering is not None:
            self._answering.cancel()
        self._socket.close()

    def _asked(self) -> None:
        try:
            question = self._socket.recv(MOST_BYTES)
        except OSError:
            return
        if not question:  # the supervisor is gone, and the kernel ends this process
            asyncio.get_running_loop().remove_reader(self._socket)
        elif self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        answer = json.dumps(await self._report()).encode()
        with suppress(OSError):  # he asks again
            self._socket.send(answer)

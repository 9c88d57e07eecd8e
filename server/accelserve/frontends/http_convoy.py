"""Requests that came in the same moment and ask the same of one light model, read and answered together.

At 32 clients most of what a small request costs is Python that does for each what it could do for all: parse, stack,
queue, split, write. A convoy does it once. It is made of requests whose heads say the same but for the length of the
body, and it breaks up into its requests, which then go the usual way one by one, whenever anything is unusual: a body
that is not plain rows of numbers, an error of any kind. So nobody is told anything that he would not have been told
alone, and a bad request costs its neighbours a second reading and nothing else.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeAlias

from accelserve.frontends.http_messages import HttpRequest, HttpResponse
from accelserve.observability.metrics import RequestRecord
from accelserve.ticket import Errand

logger = logging.getLogger("accelserve.http")

MOST_TOGETHER = 64

# What became of a convoy: the answers, or each request's record to go on with alone.
Outcome: TypeAlias = tuple[Sequence[HttpResponse], None] | tuple[None, Sequence[RequestRecord]]
# present: whether somebody still waits for each of the requests; it changes meanwhile.
Together: TypeAlias = Callable[[Sequence[HttpRequest], Sequence[bool]], Coroutine[Any, Any, Outcome]]


class Member(Protocol):
    """A request in a convoy; nothing is told to one that has left."""

    def told(self, answer: HttpResponse) -> None:
        """The answer is there."""
        ...

    def alone(self, request: HttpRequest, record: RequestRecord) -> None:
        """Go the usual way, with the record that was opened for it."""
        ...

    def give_up(self) -> None:
        """The server ends before the answer is there."""
        ...


class Convoy(Errand):
    """Drives the handler of all; `leave` is for a member whose client has gone."""

    __slots__ = ("_members", "_present", "_requests")

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        self._members = members
        self._present = [True] * len(members)
        self._requests: Sequence[HttpRequest] = ()

    def start(self, together: Together, requests: Sequence[HttpRequest]) -> None:
        """requests: of the members, in order."""
        self._requests = requests
        self.run(together(requests, self._present))

    def leave(self, member: Member) -> None:
        """Light models compute its rows all the same; the last one to leave takes them out of the queue."""
        self._present[self._members.index(member)] = False
        if not any(self._present):
            self.cancel()

    def returned(self, value: Outcome) -> None:
        answers, records = value
        requests, self._requests = self._requests, ()
        for index, member in enumerate(self._members):
            try:
                if answers is not None:
                    if self._present[index]:
                        member.told(answers[index])
                elif records is not None:
                    if self._present[index]:
                        member.alone(requests[index], records[index])
                    else:
                        records[index].left()
            except Exception:  # a fault of ours at one must not keep the others waiting
                logger.exception("a request of a convoy could not be answered")

    def raised(self, error: BaseException) -> None:
        """Only what is no Exception comes here, and its requests have been counted."""
        for member, present in zip(self._members, self._present, strict=True):
            if present:
                member.give_up()
        if not isinstance(error, asyncio.CancelledError):
            raise error

"""A request of the script while its answer is waited for."""

import asyncio
from typing import Protocol

from accelserve.entry_script.messages import ScriptResponse
from accelserve.ticket import Ticket


class RunOwner(Protocol):
    """Who is told that nobody waits for a run any more."""

    def withdraw(self, run: "ScriptRun") -> None: ...


class ScriptRun(Ticket[ScriptResponse]):
    """What waits for the answer; a `dispatch.Job`. head: `heads.request_head`'s. request_id: for the log."""

    __slots__ = (
        "_owner",
        "arrived_ns",
        "began_ns",
        "body",
        "deadline_ns",
        "expires_ns",
        "head",
        "number",
        "request_id",
        "size_bytes",
        "unwanted",
    )

    def __init__(
        self,
        owner: RunOwner,
        loop: asyncio.AbstractEventLoop,
        head: bytes,
        body: bytes,
        arrived_ns: int,
        deadline_ns: int | None,
        request_id: str,
    ) -> None:
        super().__init__(loop)
        self._owner = owner
        self.head = head
        self.body = body
        self.request_id = request_id
        self.size_bytes = len(body)
        self.arrived_ns = arrived_ns
        self.deadline_ns = self.expires_ns = deadline_ns
        self.number = self.began_ns = 0
        self.unwanted = False

    def withdrawn(self) -> None:
        self._owner.withdraw(self)

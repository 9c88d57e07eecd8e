"""Memory that requests needed goes back to the host when no more come."""

import asyncio
from collections.abc import Callable

_IDLE_LOOK_S = 5.0  # between two looks whether the server is idle; after one without a request memory goes back


async def return_memory_when_idle(
    traffic: Callable[[], tuple[int, int]], give_back: Callable[[], None], look_s: float = _IDLE_LOOK_S
) -> None:
    """Once after each time of work, when no request came or was under way from one look to the next.

    traffic: (received, in flight). Not while requests run: malloc is locked meanwhile.
    """
    given_at = seen = traffic()[0]
    while True:
        await asyncio.sleep(look_s)
        received, in_flight = traffic()
        if received == seen != given_at and not in_flight:
            await asyncio.to_thread(give_back)
            given_at = received
        seen = received

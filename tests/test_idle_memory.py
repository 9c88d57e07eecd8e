"""Memory goes back when the server has nothing to do."""

import asyncio
from collections.abc import Iterator

from accelserve.idle_memory import return_memory_when_idle


def given_after(looks: list[tuple[int, int]]) -> list[int]:
    """The look, counted from 0, after which memory was given back, for each time that it was."""
    seen: Iterator[tuple[int, tuple[int, int]]] = enumerate(looks)
    given: list[int] = []
    at, over = 0, asyncio.Event()

    def traffic() -> tuple[int, int]:
        nonlocal at
        try:
            at, found = next(seen)
        except StopIteration:
            over.set()
            return looks[-1]
        return found

    async def watch() -> None:
        task = asyncio.create_task(return_memory_when_idle(traffic, lambda: given.append(at), look_s=0))
        async with asyncio.timeout(5):
            await over.wait()
        task.cancel()

    asyncio.run(watch())
    return given


def test_memory_goes_back_once_after_each_time_of_work() -> None:
    assert given_after([(0, 0), (5, 0), (5, 0), (5, 0), (9, 0), (9, 0), (9, 0)]) == [2, 5]


def test_a_server_that_was_never_asked_gives_nothing_back() -> None:
    assert given_after([(0, 0), (0, 0), (0, 0)]) == []


def test_nothing_goes_back_while_a_request_is_under_way() -> None:
    assert given_after([(0, 0), (3, 1), (3, 1), (3, 0), (3, 0)]) == [3]

"""How a server learns that it is to end, and how what it waits for meanwhile is given up."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from accelserve.errors import ExitCode, ScoringError

logger = logging.getLogger("accelserve.runtime")


class StopSignals:
    """SIGTERM and SIGINT. The first asks to stop, the second ends the process at once."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.interactive = False  # SIGINT: a person is waiting, so no grace period

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received, number)

    def _received(self, number: signal.Signals) -> None:
        if self.asked.is_set():
            os.write(2, b"accelserve: second signal, ending at once\n")
            os._exit(ExitCode.UNFORESEEN)
        self.interactive = number == signal.SIGINT
        self.asked.set()


def run_until_stopped(serve: Callable[[StopSignals], Coroutine[Any, Any, ExitCode]]) -> ExitCode:
    """Run a server on an event loop of its own on this thread. Returns the process's exit code."""
    import uvloop

    async def main() -> ExitCode:
        signals = StopSignals()
        signals.install(asyncio.get_running_loop())
        return await serve(signals)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())
    except ScoringError as error:
        for line in error.message.splitlines():  # each problem of a script, for people
            logger.error("%s", line)
        return ExitCode.of(error.kind)


async def stopped(signals: StopSignals, http_task: "asyncio.Task[None]") -> None:
    """Until told to stop. An HTTP server that ends by itself raises here, and ends the process."""
    asked = asyncio.create_task(signals.asked.wait())
    try:
        await asyncio.wait({asked, http_task}, return_when=asyncio.FIRST_COMPLETED)
        if http_task.done():
            http_task.result()
            raise RuntimeError("the HTTP server ended by itself")
    finally:
        asked.cancel()


async def answer_on(
    signals: StopSignals, grace_period_s: float, leave: Callable[[], Coroutine[Any, Any, None]]
) -> None:
    """Let health say that the server goes (`leave`), and answer on for the grace period: endpoints learn it late."""
    grace_s = 0.0 if signals.interactive else grace_period_s
    logger.info("told to stop: answering on for %.1f s, then draining", grace_s)
    await leave()
    await asyncio.sleep(grace_s)


async def first(wanted: Coroutine[Any, Any, None], stop: "asyncio.Task[Any]") -> bool:
    """Whether `wanted` came before the order to stop; what either raises is raised here."""
    waiting = asyncio.create_task(wanted)
    try:
        done, _ = await asyncio.wait({waiting, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        return waiting in done
    finally:
        waiting.cancel()


async def all_of(waits: Sequence[Coroutine[Any, Any, object]]) -> None:
    """Until all are over; the first failure is raised, and the others are waited for no more."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()

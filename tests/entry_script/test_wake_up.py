"""One timer for all that the pool waits for."""

import asyncio

from fake_workers import FakeClock

from accelserve.entry_script.wake_up import WakeUp

MOMENT_NS = 10_000_000


def test_it_rings_once_for_all_that_is_due_by_then_and_no_more_once_closed():
    async def main() -> None:
        clock, rang = FakeClock(), asyncio.Event()
        wake_up = WakeUp(clock, rang.set)
        wake_up.by(clock.now + 10**15)
        wake_up.by(clock.now + MOMENT_NS)
        wake_up.by(clock.now + 10**14)
        async with asyncio.timeout(10):
            await rang.wait()
        rang.clear()
        wake_up.by(clock.now)
        wake_up.close()
        wake_up.by(clock.now)
        await asyncio.sleep(0.03)
        assert not rang.is_set()

    asyncio.run(main())

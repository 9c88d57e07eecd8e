"""Plays streams of bytes to a service of each lane and compares all that comes back."""

import asyncio
import re
from collections.abc import Iterable
from contextlib import AsyncExitStack

from http_service import LANES, LIMITS, Heard, Service, serving
from http_streams import Event, Stream

# Refusals of the connection itself make an id of their own.
_OWN_ID = re.compile(rb"(?<=x-request-id: )[0-9a-f]{32}")


async def play(service: Service, stream: Stream) -> tuple[Heard, ...]:
    """What was heard after each step, and after the time that idle connections are kept."""
    connection = service.connect()
    heard = []
    for step in stream.steps:
        if step is Event.DRAINING:
            service.policy.draining = True
        elif step is Event.SHUTDOWN:
            connection.protocol.shutdown()
        elif step is Event.IDLE:
            await connection.advance(LIMITS.keep_alive_s + 1)
        elif step is Event.FULL:
            connection.wire.stop_reading()
        elif step is Event.READS:
            connection.wire.read_on()
            await connection.settle()
        elif not connection.wire.closed:
            await connection.send(*([step] if isinstance(step, bytes) else step))
        heard.append(connection.heard())
    await connection.advance(LIMITS.keep_alive_s + 1)
    heard.append(connection.heard())
    await connection.lose()
    service.policy.draining = False
    return tuple(heard)


async def compare(services: list[Service], streams: Iterable[Stream]) -> int:
    """Fails for the first stream that is not answered alike. Returns how many there were."""
    count = 0
    for count, stream in enumerate(streams, 1):  # noqa: B007
        fast, slow = [_masked(await play(service, stream)) for service in services]
        assert fast == slow, stream.name
    assert services[0].told == services[1].told
    fast, slow = [_books(service) for service in services]
    assert fast == slow
    return count


def _masked(heard: Iterable[Heard]) -> list[tuple[bytes, bool, bool, bool]]:
    return [(_OWN_ID.sub(b"its own", h.written), h.ended, h.closed, h.aborted) for h in heard]


def _books(service: Service) -> list[str]:
    """What the metrics page says of the server, not of its process, nor of runs that nobody waited for."""
    page, _ = service.metrics.render()
    lines = [line for line in page.decode().splitlines() if line.startswith("accelserve_")]
    return [line for line in lines if 'model="slow"' not in line or line.startswith("accelserve_request")]


def through_both_lanes(tmp_path, streams: Iterable[Stream]) -> int:
    async def main() -> int:
        async with AsyncExitStack() as stack:
            services = [await stack.enter_async_context(serving(tmp_path / lane, lane)) for lane in LANES]
            return await compare(services, streams)

    return asyncio.run(main())

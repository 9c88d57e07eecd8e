"""Large bodies in place, over sockets and both event loops: each its own bytes, whatever the clients do."""

import asyncio
import random
import struct
from collections.abc import Callable

import numpy as np
import pytest
import uvloop

from accelserve.frontends.http_body import BodyMemory, BodyReader

_HEAD = struct.Struct("!I")
_AT_ONCE_S = 30


class Echo(asyncio.Protocol):
    """A length, a body; answered with the body's sum. Above 1,000 bytes a reader receives it."""

    def __init__(self, memory: BodyMemory, held: list[tuple[np.ndarray, int]]) -> None:
        self.memory = memory
        self.held = held
        self.reader: BodyReader | None = None
        self.buffer = b""
        self.told: list[str] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.reader = BodyReader(self, transport, self.memory)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 4:
            (size,) = _HEAD.unpack_from(self.buffer)
            end = 4 + size
            if len(self.buffer) >= end:
                body, self.buffer = self.buffer[4:end], self.buffer[end:]
                self.answer(body)
            elif size > 1000:
                begun, self.buffer = memoryview(self.buffer)[4:], b""
                assert self.reader.expect(size, begun)
            else:
                return

    def body_growing(self) -> None:
        self.told.append("growing")

    def body_received(self, body: bytes) -> None:
        self.answer(body)

    def answer(self, body: bytes) -> None:
        tensor = np.frombuffer(body, np.uint8)
        self.held.append((tensor, total(tensor)))
        self.transport.write(_HEAD.pack(self.held[-1][1]))

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")


def total(tensor: np.ndarray) -> int:
    """Depends on the place of each byte too."""
    return int(
        np.add.reduce(tensor.astype(np.uint32) * np.arange(1, len(tensor) + 1, dtype=np.uint32), dtype=np.uint32)
    )


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request) -> Callable[..., None]:
    def run(scenario) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(asyncio.wait_for(scenario(), _AT_ONCE_S))

    return run


class Served:
    def __init__(self, ahead_bytes: int = 2**29) -> None:
        self.memory = BodyMemory(ahead_bytes)
        self.held: list[tuple[np.ndarray, int]] = []
        self.connections: list[Echo] = []

    async def __aenter__(self) -> "Served":
        self.server = await asyncio.get_running_loop().create_server(self._new, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *failure: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    def _new(self) -> Echo:
        self.connections.append(Echo(self.memory, self.held))
        return self.connections[-1]

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.server.sockets[0].getsockname()[:2])


async def until(holds: Callable[[], bool]) -> None:
    """Polls; `run` bounds it in time."""
    for _ in iter(holds, True):
        await asyncio.sleep(0)


def test_pipelined_bodies_of_all_sizes_over_many_connections_are_each_their_own(run):
    async def scenario() -> None:
        async with Served() as served:

            async def one(seed: int) -> None:
                rng = random.Random(seed)
                reader, writer = await served.client()
                sizes = [rng.choice((0, 3, 999, 1001, 40_000, 70_000, 300_000)) for _ in range(40)]
                bodies = [rng.randbytes(size) for size in sizes]
                wire = b"".join(_HEAD.pack(len(body)) + body for body in bodies)

                async def send() -> None:
                    at = 0
                    while at < len(wire):
                        step = rng.choice((1, 5, 1000, 65_000, 200_000, 1_000_000))
                        writer.write(wire[at : at + step])
                        at += step
                        await writer.drain()
                        await asyncio.sleep(0)

                sending = asyncio.create_task(send())
                for body in bodies:
                    assert _HEAD.unpack(await reader.readexactly(4))[0] == total(np.frombuffer(body, np.uint8))
                await sending
                writer.close()

            await asyncio.gather(*(one(seed) for seed in range(8)))
            assert len(served.held) == 8 * 40
            assert all(total(tensor) == seen for tensor, seen in served.held)  # none has changed since

    run(scenario)


def test_a_client_that_leaves_in_mid_body_gives_its_memory_back(run):
    async def scenario() -> None:
        async with Served(ahead_bytes=10**6) as served:
            for _ in range(3):
                _, writer = await served.client()
                writer.write(_HEAD.pack(10**6) + b"x" * 5000)
                await writer.drain()
                writer.close()
                await until(lambda: bool(served.connections))
                connection = served.connections.pop()
                await until(lambda connection=connection: "lost" in connection.told)
            assert served.memory.take(10**6) is not None

    run(scenario)


def test_reading_pauses_and_goes_on_in_mid_body(run):
    async def scenario() -> None:
        async with Served() as served:
            reader, writer = await served.client()
            body = random.Random(3).randbytes(3_000_000)
            writer.write(_HEAD.pack(len(body)) + body[:100_000])
            await until(lambda: bool(served.connections) and served.connections[0].reader._filled > 0)
            transport = served.connections[0].transport
            transport.pause_reading()
            writer.write(body[100_000:])
            before = served.connections[0].reader._filled
            for _ in range(20):
                await asyncio.sleep(0)
            assert served.connections[0].reader._filled == before
            transport.resume_reading()
            assert _HEAD.unpack(await reader.readexactly(4))[0] == total(np.frombuffer(body, np.uint8))
            writer.close()

    run(scenario)


def test_the_end_of_what_a_client_sends_is_told_in_mid_body(run):
    async def scenario() -> None:
        async with Served() as served:
            reader, writer = await served.client()
            writer.write(_HEAD.pack(10**6) + b"x" * 5000)
            writer.write_eof()
            assert await reader.read() == b""
            await until(lambda: "lost" in served.connections[0].told)
            assert served.connections[0].told[-2:] == ["eof", "lost"]
            writer.close()

    run(scenario)


def test_clients_that_announce_64_mib_each_and_send_little_cost_what_they_send(run):
    async def scenario() -> None:
        async with Served() as served:
            before = resident_bytes()
            clients = [await served.client() for _ in range(7)]
            for _, writer in clients:
                writer.write(_HEAD.pack(2**26) + b"x" * 5000)
            await until(lambda: sum(c.reader._filled > 0 for c in served.connections) == 7)
            assert resident_bytes() - before < 32 * 2**20
            for _, writer in clients:
                writer.close()

    run(scenario)


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

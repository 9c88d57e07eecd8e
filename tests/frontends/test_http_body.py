"""Large bodies in place, without sockets: what a reader tells its connection, and what it gives back."""

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from accelserve.frontends.http_body import BodyMemory, BodyReader


@dataclass
class Transport:
    """Delivers as uvloop's and asyncio's do: get_buffer, then buffer_updated."""

    protocols: list[object] = field(default_factory=list)

    def set_protocol(self, protocol: object) -> None:
        self.protocols.append(protocol)

    def deliver(self, data: bytes, at_most: int = 2**20) -> None:
        reader = self.protocols[-1]
        while data:
            with memoryview(reader.get_buffer(-1)) as buffer:
                n = min(len(buffer), len(data), at_most)
                buffer[:n] = data[:n]
                reader.buffer_updated(n)
            data = data[n:]


@dataclass
class Connection:
    seen: list[object] = field(default_factory=list)

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        self.seen.append(("data", data))

    def body_growing(self) -> None:
        self.seen.append("growing")

    def body_received(self, body: bytes) -> None:
        assert type(body) is bytes
        self.seen.append(("body", body))

    def eof_received(self) -> bool | None:
        self.seen.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(("lost", exc))

    def pause_writing(self) -> None:
        self.seen.append("pause")

    def resume_writing(self) -> None:
        self.seen.append("resume")


@pytest.fixture
def memory() -> BodyMemory:
    return BodyMemory(ahead_bytes=1000)


@pytest.fixture
def connection() -> Connection:
    return Connection()


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def reader(connection: Connection, transport: Transport, memory: BodyMemory) -> BodyReader:
    return BodyReader(connection, transport, memory)


def test_a_body_that_comes_in_pieces_is_told_when_it_is_whole(reader, connection, transport):
    assert reader.expect(10, b"01")
    transport.deliver(b"234")
    assert connection.seen == ["growing"]
    transport.deliver(b"56789")
    assert connection.seen == ["growing", ("body", b"0123456789")]


def test_what_follows_a_body_in_the_same_delivery_is_data(reader, connection, transport):
    reader.expect(4, b"ab")
    transport.deliver(b"cdGET / HTTP/1.1\r\n")
    assert connection.seen == [("body", b"abcd"), ("data", b"GET / HTTP/1.1\r\n")]


def test_a_body_may_begin_with_nothing_or_with_a_view(reader, connection, transport):
    reader.expect(2, b"")
    transport.deliver(b"ab")
    reader.expect(3, memoryview(b"head:cd")[5:])
    transport.deliver(b"e")
    assert connection.seen == [("body", b"ab"), ("body", b"cde")]


def test_the_transport_changes_its_protocol_once(reader, transport):
    for _ in range(3):
        reader.expect(2, b"a")
        transport.deliver(b"b")
    assert transport.protocols == [reader]


def test_the_next_body_may_be_expected_while_the_last_is_told(connection, transport, memory):
    class Pipelined(Connection):
        def body_received(self, body: bytes) -> None:
            super().body_received(body)
            if len(self.seen) < 3:
                reader.expect(3, b"x")

    connection = Pipelined()
    reader = BodyReader(connection, transport, memory)
    reader.expect(3, b"x")
    transport.deliver(b"abcdef")
    assert connection.seen == [("body", b"xab"), ("body", b"xcd"), ("body", b"xef")]


def test_data_longer_than_the_shared_memory_comes_in_several_pieces(reader, connection, transport):
    reader.expect(1, b"")
    transport.deliver(b"b")
    sent = random.Random(1).randbytes(200_000)
    transport.deliver(sent)
    pieces = [piece for what, piece in connection.seen if what == "data"]
    assert len(pieces) > 1
    assert b"".join(pieces) == sent


def test_what_comes_of_a_forgotten_body_is_data(reader, connection, transport, memory):
    reader.expect(1000, b"a")
    transport.deliver(b"b")
    reader.forget()
    transport.deliver(b"c")
    assert connection.seen == ["growing", ("data", b"c")]
    assert memory.take(1000) is not None


def test_a_forgotten_body_may_be_forgotten_again(reader, memory):
    reader.expect(10, b"a")
    reader.forget()
    reader.forget()
    assert memory.take(1000) is not None
    assert memory.take(1) is None


def test_forgetting_while_a_part_is_told_harms_nobody(transport, memory):
    class Impatient(Connection):
        def body_growing(self) -> None:
            reader.forget()

    connection = Impatient()
    reader = BodyReader(connection, transport, memory)
    reader.expect(100, b"")
    transport.deliver(b"0123456789", at_most=5)
    assert connection.seen == [("data", b"56789")]


def test_more_than_may_be_set_aside_is_refused_and_nothing_changes(reader, connection, transport, memory):
    assert not reader.expect(1001, b"a")
    assert transport.protocols == []
    assert reader.expect(1000, b"a")


def test_all_connections_share_what_may_be_set_aside(memory):
    first, second = (BodyReader(Connection(), Transport(), memory) for _ in range(2))
    assert first.expect(600, b"a")
    assert not second.expect(600, b"a")
    first.connection_lost(None)
    assert second.expect(600, b"a")


def test_a_complete_body_counts_no_more(reader, transport, memory):
    for _ in range(5):
        assert reader.expect(1000, b"a" * 999)
        transport.deliver(b"b")


def test_a_size_that_the_system_does_not_give_is_refused():
    memory = BodyMemory(ahead_bytes=2**62)
    assert memory.take(2**61) is None
    assert memory.take(2**61 + 2**60) is None  # and costs nothing of what may be set aside


@pytest.mark.parametrize("lost", [None, ConnectionResetError()])
def test_a_connection_that_is_lost_in_mid_body_is_told_and_gives_its_memory_back(
    reader, connection, transport, memory, lost
):
    reader.expect(1000, b"a")
    reader.connection_lost(lost)
    assert connection.seen == [("lost", lost)]
    assert memory.take(1000) is not None


def test_a_connection_is_told_all_else_that_its_transport_tells(reader, connection):
    reader.expect(10, b"a")
    assert reader.eof_received() is True
    reader.pause_writing()
    reader.resume_writing()
    assert connection.seen == ["eof", "pause", "resume"]


def test_bodies_that_somebody_holds_never_change(reader, connection, transport, memory):
    """Whatever is received after them: the memory of a body is nobody else's while a reference lives."""
    rng = random.Random(7)
    held: list[tuple[np.ndarray, bytes]] = []
    for turn in range(600):
        sent = rng.randbytes(rng.choice((40, 400, 999)))
        begun = rng.randrange(len(sent))
        assert reader.expect(len(sent), sent[:begun])
        transport.deliver(sent[begun:], at_most=rng.randrange(1, 300))
        what, body = connection.seen.pop()
        assert (what, body) == ("body", sent)
        connection.seen.clear()
        if turn % 3 == 0:
            held.append((np.frombuffer(body, np.uint8), bytes(bytearray(sent))))  # a view is all that is kept
        if turn % 50 == 0:
            del held[: len(held) // 2]
        del body
    assert all(tensor.tobytes() == sent for tensor, sent in held)


def test_a_tensor_of_a_body_can_not_be_written_to(reader, connection, transport):
    reader.expect(8, b"\0")
    transport.deliver(bytes(7))
    tensor = np.frombuffer(connection.seen[-1][1], np.float32)
    assert not tensor.flags.writeable


def test_an_abandoned_body_is_shown_to_nobody(reader, connection, transport):
    reader.expect(500, b"secret")
    reader.connection_lost(None)
    assert connection.seen == [("lost", None)]

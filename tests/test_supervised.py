"""How a server answers the supervisor that started it."""

import asyncio
import json
import socket

import pytest

from accelserve.supervised import MOST_BYTES, Line, Supervised, parse_supervised


def test_what_a_supervisor_gives_is_read_back():
    given = Supervised(7, 8, 1234)
    assert parse_supervised(str(given)) == given


@pytest.mark.parametrize("text", ["", "1:2", "1:2:3:4", "-1:2:3", "a:b:c", "1:2:3\n", "9999999999:1:1"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="LINE:HTTP:PARENT"):
        parse_supervised(text)


async def _talk(report, ask):
    """What `ask` hears of a line that answers with `report`, on an event loop."""
    supervisor, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor.settimeout(10)
    line = Line(server.detach(), report)
    line.open()
    try:
        return await asyncio.to_thread(ask, supervisor)
    finally:
        line.close()
        supervisor.close()


def test_each_question_is_answered_with_what_is_so_then():
    asked = []

    async def report():
        asked.append(True)
        return {"ready": len(asked) > 1, "reason": "loading", "in_flight": 3}

    def ask(supervisor):
        answers = []
        for _ in range(2):
            supervisor.send(b"?")
            answers.append(json.loads(supervisor.recv(MOST_BYTES)))
        return answers

    first, second = asyncio.run(_talk(report, ask))
    assert first == {"ready": False, "reason": "loading", "in_flight": 3}
    assert second["ready"] is True


def test_a_supervisor_that_is_gone_is_no_reason_to_spin():
    async def report():
        return {}

    async def main():
        supervisor, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        descriptor = server.detach()
        line = Line(descriptor, report)
        line.open()
        supervisor.close()
        for _ in range(10):
            await asyncio.sleep(0)
        watched = asyncio.get_running_loop().remove_reader(descriptor)
        line.close()
        assert not watched

    asyncio.run(main())

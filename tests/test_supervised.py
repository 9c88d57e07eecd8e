"""How a server answers the supervisor that started it."""

import asyncio
import json
import os
import select
import socket
import subprocess
import sys

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


def test_a_process_whose_supervisor_is_gone_before_it_could_say_so_ends():
    code = "from accelserve.supervised import die_with; die_with(1 << 30); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_process_dies_with_its_supervisor():
    child = (
        "import os, time; from accelserve.supervised import die_with; "
        "die_with(os.getppid()); print('on', flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, os\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=30)
    try:
        left = os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        return
    ended, _, _ = select.select([left], [], [], 10)
    os.close(left)
    assert ended

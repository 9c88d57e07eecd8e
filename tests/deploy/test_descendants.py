"""What a replica has started: how much memory it has, and how it is found when it is nobody's child."""

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from accelserve.deploy.descendants import MARK, kill_left, kill_marked, mark_of, resident_bytes


@pytest.fixture
def marked():
    """Starts a process with a mark, nobody's child in a session of its own. Returns a descriptor of it."""
    opened = []

    def start(mark: str) -> int:
        daemon = "import os, time; os.setsid(); print(os.getpid(), flush=True); time.sleep(60)"
        code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {daemon!r}])"
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, MARK: mark})
        opened.append(os.pidfd_open(int(child.stdout.readline())))
        child.stdout.close()
        child.wait()
        return opened[-1]

    yield start
    for descriptor in opened:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)


def has_ended(descriptor: int, within_s: float = 10) -> bool:
    return bool(select.select([descriptor], [], [], within_s)[0])


def test_what_carries_a_mark_is_killed_and_nothing_else(marked, tmp_path):
    first, tenth = (marked(mark_of(tmp_path / "numbers", serial)) for serial in (1, 10))
    kill_marked(mark_of(tmp_path / "numbers", 1))
    assert has_ended(first)
    assert not has_ended(tenth, 0)


def test_what_a_killed_supervisor_left_is_found_by_the_services_folder(marked, tmp_path):
    own, others = (marked(mark_of(tmp_path / name, 3)) for name in ("numbers", "numbers-2"))
    kill_left(tmp_path / "numbers")
    assert has_ended(own)
    assert not has_ended(others, 0)


def test_memory_is_that_of_a_process_with_all_that_it_started():
    code = "import subprocess, sys; x = bytearray(50_000_000); print(flush=True); sys.stdin.read()"
    nested = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {code!r}], stdin=sys.stdin)\n"
        "child.wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        own = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert resident_bytes(process.pid) > own + 50_000_000
    finally:
        process.communicate(timeout=30)
    assert resident_bytes(process.pid) == 0

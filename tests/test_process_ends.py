"""How a process ends: with its parent, and in words."""

import os
import select
import subprocess
import sys

from accelserve.process_ends import signal_name


def test_a_signal_is_told_by_its_name_and_one_without_by_its_number():
    assert (signal_name(9), signal_name(40)) == ("SIGKILL", "signal 40")


def test_a_process_whose_parent_is_gone_before_it_could_say_so_ends():
    code = "from accelserve.process_ends import die_with; die_with(1 << 30); print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_process_dies_with_its_parent():
    child = (
        "import os, time; from accelserve.process_ends import die_with; "
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

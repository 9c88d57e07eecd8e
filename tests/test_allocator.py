"""What malloc keeps, and that it can be given back."""

import platform
import subprocess
import sys

import pytest

_KEEP_AND_RETURN = """
from accelserve.allocator import raise_malloc_thresholds, return_free_memory

def resident_mib():
    status = open("/proc/self/status").read()
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024

assert raise_malloc_thresholds()
before = resident_mib()
blocks = [b"x" * 2**20 for _ in range(200)]
del blocks[:-1]  # the last one lies above them
kept = resident_mib()
return_free_memory()
print(kept - before, resident_mib() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is told anything")
def test_memory_that_is_kept_for_later_can_be_given_back():
    told = subprocess.run([sys.executable, "-c", _KEEP_AND_RETURN], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    kept_mib, left_mib = map(int, told.stdout.split())
    assert kept_mib > 150
    assert left_mib < 50

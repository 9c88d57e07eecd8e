"""glibc's malloc, told to keep large buffers, since page faults of fresh 600 KB bodies cost more than parsing them;
and to give back what it keeps when a model has gone.

Measured in specs/performance.md section 0.3: HTTP with 600 KB bodies 694 -> 64 µs.
"""

import ctypes
import logging

logger = logging.getLogger("accelserve.runtime")

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MMAP_THRESHOLD_BYTES = 64 * 2**20
_TRIM_THRESHOLD_BYTES = 256 * 2**20


def raise_malloc_thresholds() -> bool:
    """Whether it worked; elsewhere than on glibc it does not, and nothing is lost but speed."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        logger.info("malloc thresholds are not raised: the C library has no mallopt")
        return False
    done = mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES) and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)
    return bool(done)


def return_free_memory() -> None:
    """Give the system what malloc keeps for later: of a model's load and weights, several times its size.

    Blocks for some milliseconds for each 100 MB. Elsewhere than on glibc it does nothing.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return
    trim(ctypes.c_size_t(0))

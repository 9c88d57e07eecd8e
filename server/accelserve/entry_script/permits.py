"""Permissions to begin a request that was given ahead: a counter that the server and a worker share, an eventfd.

The worker takes one before it begins each such request, in order, and passes over those for which it finds none; the
server takes back what is left. Whoever takes one has it alone, so no request is run twice, whatever the worker is
doing meanwhile.
"""

import os


def take_permit(descriptor: int) -> bool:
    """Whether there was one. descriptor: an eventfd, EFD_SEMAPHORE | EFD_NONBLOCK. Raises OSError if it is closed."""
    try:
        os.eventfd_read(descriptor)
    except BlockingIOError:
        return False
    return True

"""The garbage collector of a server that starts: what is imported stays, and there is no garbage in it to look for."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_that_stay() -> Iterator[None]:
    """No collection while the server is imported, and none that looks at it ever after, not even at the end.

    Once in a process: all objects that are there at the end of it are left alone.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()

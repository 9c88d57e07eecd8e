"""What is told while it runs: one line a step, with the seconds since the start."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

_BEGAN = time.monotonic()  # of the process, for the lines alone


class CheckFailed(Exception):
    """A promise is broken, or a tool said no; the message is all that the user gets."""


def tell(text: str) -> None:
    print(f"[{time.monotonic() - _BEGAN:6.1f} s] {text}", flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Tells that it begins, and how long it took."""
    tell(f"{text} ...")
    began = time.monotonic()
    yield
    tell(f"    done in {time.monotonic() - began:.1f} s")


def require(holds: bool, promise: str, got: object = "") -> None:
    """Raises CheckFailed unless the promise holds; tells it if it does."""
    if not holds:
        raise CheckFailed(f"{promise}: NOT SO; got {got!r}")
    tell(f"    ok: {promise}")

"""Large bodies and answers away from the event loop, on a thread of their own.

The codecs are Python and hold the GIL, but a thread gives it back every few milliseconds, so the loop goes on
answering. The decoders of pictures have another pool: a picture never waits for somebody's ten megabytes of JSON.
"""

import asyncio
import gc
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Tensor

# Above these a hop to another thread (about 50 µs) costs little beside the work itself.
LARGE_BYTES = 2**18  # of JSON to read, or of numbers to write as JSON
LARGE_COPY_BYTES = 2**20  # of what is copied at most, or comes as many small strings: .npy, TensorProto

_MOST_ACCEPTED = 256
# Two would compete with the loop for the GIL and be no faster: of six bodies of 10 MB at once, a neighbour waits for
# 0.2 s with one thread, for 0.55 s with two.
_THREADS = 1

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def encoding_bytes(outputs: Mapping[str, Tensor]) -> int:
    """The size of what is to be written."""
    return sum([tensor.nbytes for tensor in outputs.values()])


class _CollectorPause:
    """No cyclic garbage is looked for while any thread is within.

    Documents make no cycles, and the collector would walk their millions of lists again and again as they grow, holding
    the GIL: an empty list costs six times as much to parse.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._was_on = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._was_on = gc.isenabled()
                gc.disable()
            self._inside += 1

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._was_on:
                gc.enable()


class Offload:
    """Runs functions on its threads. Callers compare sizes themselves: all that a small request pays."""

    def __init__(self, threads: int = _THREADS) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="accelserve-offload")
        self._accepted = 0
        self._pause = _CollectorPause()

    async def run(
        self, work: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        """`work(*arguments)` on another thread. A caller that is cancelled is let go at once; what runs runs on.

        Raises ScoringError: what `work` raises, and OVERLOADED (reason "decode_queue_full").
        """
        if self._accepted >= _MOST_ACCEPTED:
            message = f"{self._accepted} large bodies wait to be read or written; try again later"
            raise ScoringError(Kind.OVERLOADED, message, reason="decode_queue_full", retry_after_s=1)
        self._accepted += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, lambda: _run(self._pause, work, *arguments, **named))
        finally:
            self._accepted -= 1

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _run(
    paused: _CollectorPause,
    work: Callable[Arguments, Result],
    *arguments: Arguments.args,
    **named: Arguments.kwargs,
) -> Result:
    """What `work` leaves behind, a parsed document of millions of lists perhaps, is freed here, not on the loop."""
    try:
        with paused:
            return work(*arguments, **named)
    except ScoringError as error:
        if error.kind is Kind.INTERNAL:
            raise  # the log wants to know where from
        # Frames, and causes with theirs, would carry the document along.
        told = ScoringError(error.kind, error.message, reason=error.reason, retry_after_s=error.retry_after_s)
    raise told

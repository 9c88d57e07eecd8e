"""Sessions that are broken in one way each, and sound ones that lend memory and take pixels to break: for the kit."""

import itertools
import os
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from accelserve.backends.base import Batch, BatchResult
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, Signature, TensorSpec

SESSIONS = itertools.count()
PASSED_ON = threading.Event()  # is never set: waiting for it is how time passes here
STEPS = Preprocessing((2, 3), layout="NHWC", mean=(1.0, 2.0, 3.0), scale=(0.5, 0.25, 2.0))


class Sound:
    """Everything as the session behind it, whose model doubles x into y."""

    def __init__(self, session: object, lease: object = None) -> None:
        self.inner = session
        self.lease = lease
        self.number = next(SESSIONS)
        self.runs = 0
        self.kept: object = None

    def __getattr__(self, name: str) -> object:
        if name in ("buffers", "take_pixels"):
            raise AttributeError(name)
        return getattr(self.inner, name)

    def run(self, batch: Batch) -> BatchResult:
        return self.inner.run(batch)

    def close(self) -> None:
        self.inner.close()


def running(change: Callable[[Sound, Batch], BatchResult], base: type = Sound) -> type:
    """A session whose `run` is this function."""
    return type("Broken", (base,), {"run": change})


def closing(change: Callable[[Sound], None]) -> type:
    return type("Broken", (Sound,), {"close": change})


def answering(change: Callable[[Sound, Batch, np.ndarray], np.ndarray], base: type = Sound) -> type:
    """A session that gives `change` of the right answer."""

    def run(self: Sound, batch: Batch) -> BatchResult:
        self.runs += 1
        result = base.run(self, batch)
        return replace(result, outputs={k: change(self, batch, v) for k, v in result.outputs.items()})

    return running(run, base)


def tolerant(mend: Callable[[Batch], Batch]) -> type:
    """A session that makes of a wrong batch a right one, and answers."""
    return running(lambda self, batch: self.inner.run(mend(batch)))


def x_of(batch: Batch) -> np.ndarray:
    return batch.inputs["x"]


def doubled_in_place(self: Sound, batch: Batch) -> BatchResult:
    x_of(batch)[...] *= 2
    return BatchResult({"y": x_of(batch).copy()})


def doubled_in_place_and_put_back(self: Sound, batch: Batch) -> BatchResult:
    x_of(batch)[...] *= 2
    answer = x_of(batch).copy()
    x_of(batch)[...] /= 2
    return BatchResult({"y": answer})


def without_looking_at_strides(self: Sound, batch: Batch) -> BatchResult:
    x = x_of(batch)
    strides = np.empty(x.shape, x.dtype).strides
    return BatchResult({"y": np.lib.stride_tricks.as_strided(x, x.shape, strides) * 2})


def into_one_array(self: Sound, batch: Batch, answer: np.ndarray) -> np.ndarray:
    if self.kept is None:
        self.kept = np.zeros((8, 2), np.float32)
    view = self.kept[: len(answer)]
    view[...] = answer
    return view


def of_whoever_came_last(self: Sound, batch: Batch) -> BatchResult:
    self.kept = batch
    PASSED_ON.wait(0.002)
    return self.inner.run(self.kept)


def of_the_batch_before(self: Sound, batch: Batch) -> BatchResult:
    before, self.kept = self.kept, self.inner.run(batch)
    return before or self.kept


def blaming_another_row(self: Sound, batch: Batch) -> BatchResult:
    result = self.inner.run(batch)
    return replace(result, item_errors={row + 1: error for row, error in result.item_errors.items()})


def for_a_while(self: Sound, batch: Batch) -> BatchResult:
    if self.kept == "closed":
        raise ScoringError(Kind.DRAINING, "closed")
    PASSED_ON.wait(0.5)
    return BatchResult({"y": x_of(batch) * 2})


class ClosedWithoutWaiting(Sound):
    run = for_a_while

    def close(self) -> None:
        self.kept = "closed"


def close_once(self: Sound) -> None:
    if self.kept == "closed":
        raise RuntimeError("closed already")
    self.kept = "closed"
    self.inner.close()


class ClosedOnlyAfterARun(Sound):
    def run(self, batch: Batch) -> BatchResult:
        self.runs += 1
        return self.inner.run(batch)

    def close(self) -> None:
        if not self.runs:
            raise RuntimeError("there is nothing to close")
        self.inner.close()


def close_by_one_thread_at_a_time(self: Sound) -> None:
    if self.kept == "closing":
        raise RuntimeError("somebody is closing it")
    self.kept = "closing"
    PASSED_ON.wait(0.5)
    self.kept = None
    self.inner.close()


def close_with_the_lease(self: Sound) -> None:
    self.inner.close()
    self.lease.release()


def leak(self: Sound) -> None:
    os.open(os.devnull, os.O_RDONLY)
    self.inner.close()


class FailingOnceWhenLost(Sound):
    def run(self, batch: Batch) -> BatchResult:
        try:
            return self.inner.run(batch)
        except ScoringError:
            self.inner._lost = False
            raise


def internal_when_lost(self: Sound, batch: Batch) -> BatchResult:
    try:
        return self.inner.run(batch)
    except ScoringError as error:
        kind = Kind.INTERNAL if error.kind is Kind.DEVICE_LOST else error.kind
        raise ScoringError(kind, error.message) from error


def close_but_not_when_lost(self: Sound) -> None:
    if self.inner._lost:
        raise RuntimeError("the device does not answer")
    self.inner.close()


class Lending(Sound):
    """A sound session with one array of its own for each thread and number of rows."""

    def __init__(self, session: object, lease: object = None) -> None:
        super().__init__(session, lease)
        self.own = threading.local()
        self.last: np.ndarray | None = None

    def buffers(self, signature: str, rows: int) -> dict[str, np.ndarray] | None:
        if signature not in self.inner.signatures:
            return None
        lent = vars(self.own).setdefault(rows, np.zeros((rows, 2), np.float32))
        self.last = lent
        return {"x": lent}


class LendingOtherShapes(Lending):
    def buffers(self, signature: str, rows: int) -> dict[str, np.ndarray] | None:
        return {"x": np.zeros((rows, 3), np.float64)}


class LendingForAnything(Lending):
    def buffers(self, signature: str, rows: int) -> dict[str, np.ndarray]:
        return {"x": np.zeros((rows, 2), np.float32)}


def zero_in_lent_memory(self: Lending, batch: Batch, answer: np.ndarray) -> np.ndarray:
    return np.zeros_like(answer) if x_of(batch) is self.last else answer


def into_lent_memory(self: Lending, batch: Batch, answer: np.ndarray) -> np.ndarray:
    if x_of(batch) is not self.last:
        return answer
    self.last[...] = answer
    return self.last


def of_lent_memory(self: Lending, batch: Batch) -> BatchResult:
    """Once something was lent, whatever is asked is read from there."""
    same = self.last is not None and self.last.shape == x_of(batch).shape
    return self.inner.run(replace(batch, inputs={"x": self.last.copy()}) if same else batch)


class TakingPixels(Sound):
    """A sound session of pictures x float32 [n, 2, 3, 3] that takes pixels and lends memory for them."""

    mean = np.array(STEPS.mean, np.float32)
    pixels_dtype: type = np.uint8
    checked = True

    def take_pixels(self, signature: str, preprocessing: Preprocessing) -> Signature:
        spec = TensorSpec("x", BY_NAME["uint8"], (-1, 2, 3, 3), "x")
        return Signature("pixels", {"x": spec}, self.inner.signatures[signature].outputs)

    def buffers(self, signature: str, rows: int) -> dict[str, np.ndarray] | None:
        return {"x": np.zeros((rows, 2, 3, 3), self.pixels_dtype)} if signature == "pixels" else None

    def run(self, batch: Batch) -> BatchResult:
        if batch.signature != "pixels":
            return self.inner.run(batch)
        pixels = x_of(batch)
        if self.checked and (pixels.dtype != np.uint8 or pixels.shape[1:] != (2, 3, 3)):
            raise ScoringError(Kind.INVALID, "these are no pixels")
        values = (pixels.astype(np.float32) - self.mean) * np.array(STEPS.scale, np.float32)
        values = np.resize(values, (len(pixels), 2, 3, 3))
        return self.inner.run(replace(batch, signature="serving_default", inputs={"x": values}))


class KeepingPixels(TakingPixels):
    """After pixels, rows are answered with what the pixels were."""

    def run(self, batch: Batch) -> BatchResult:
        if batch.signature == "pixels":
            self.kept = super().run(batch)
        return self.kept or super().run(batch)

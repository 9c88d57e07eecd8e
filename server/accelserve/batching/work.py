"""What a model's queue is given and what it gives back."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from accelserve.batching.stack import cut_rows
from accelserve.messages import Priority, Timing
from accelserve.tensors import Signature, Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A validated request, or one part of a large one.

    inputs: by signature key. outputs: signature keys wanted, all of them in the signature.
    rows: size of axis 0; 1 where there is no batch axis. batched: may be joined with others along axis 0.
    """

    signature: Signature
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    rows: int
    batched: bool
    deadline_ns: int | None = None
    priority: Priority = Priority.NORMAL

    @property
    def group(self) -> Hashable:
        """Equal for works that can ride together: signature, outputs, and dtype and inner shape of each input."""
        inputs = self.inputs
        names = inputs if len(inputs) == 1 else sorted(inputs)
        kinds = tuple((name, inputs[name].dtype, inputs[name].shape[1:]) for name in names)
        return self.signature.name, frozenset(self.outputs), kinds

    @property
    def nbytes(self) -> int:
        """What its inputs hold; strings count with their own bytes."""
        return sum(tensor.nbytes + _string_bytes(tensor) for tensor in self.inputs.values())

    def cut(self, most: int) -> "list[Work]":
        """Itself, or parts of at most `most` rows where it may be cut."""
        if not self.batched or self.rows <= most:
            return [self]
        parts = cut_rows(self.inputs, most)
        sizes = [min(most, self.rows - at) for at in range(0, self.rows, most)]
        return [replace(self, inputs=part, rows=rows) for part, rows in zip(parts, sizes, strict=True)]


def _string_bytes(tensor: Tensor) -> int:
    return sum(map(len, tensor.ravel().tolist())) if tensor.dtype.kind == "O" else 0


@dataclass(frozen=True, slots=True)
class Scored:
    """The outputs that were asked for, by signature key, and where the time went.

    Outputs may be views of a whole batch's. Of a request that ran in parts, timing has the wait of the first, the sum
    of the runs and the largest batch.
    """

    outputs: Mapping[str, Tensor]
    timing: Timing


class BatchObserver(Protocol):
    """Told of every run, on the event loop."""

    def batch_done(self, rows: int, padded_rows: int, compute_ns: int) -> None:
        """rows: real ones; padded_rows: those the model ran, padding included."""
        ...

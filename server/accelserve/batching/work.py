"""What a model's queue is given and what it gives back."""

from collections.abc import Hashable, Mapping
from typing import NamedTuple, Protocol

from accelserve.backends.base import Device
from accelserve.batching.stack import cut_rows
from accelserve.messages import Priority, Timing
from accelserve.tensors import Signature, Tensor


class Work(NamedTuple):
    """A validated request, or one part of a large one.

    inputs: by signature key. outputs: signature keys wanted, all of them in the signature.
    rows: size of axis 0; 1 where there is no batch axis. batched: may be joined with others along axis 0.
    kind: equal to what `group` would make, from a caller that keeps it.
    """

    signature: Signature
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]
    rows: int
    batched: bool
    deadline_ns: int | None = None
    priority: Priority = Priority.NORMAL
    kind: Hashable = None

    @property
    def group(self) -> Hashable:
        """Equal for works that can ride together: signature, outputs, and dtype and inner shape of each input."""
        if self.kind is not None:
            return self.kind
        kinds = [(name, tensor.dtype, tensor.shape[1:]) for name, tensor in self.inputs.items()]
        outputs = self.outputs
        if len(kinds) == 1 and len(outputs) == 1:  # the usual case, three times as fast
            return self.signature.name, outputs, kinds[0]
        return self.signature.name, frozenset(outputs), frozenset(kinds)

    @property
    def nbytes(self) -> int:
        """What its inputs hold; strings count with their own bytes."""
        nbytes = 0
        for tensor in self.inputs.values():
            nbytes += tensor.nbytes
            if tensor.dtype.kind == "O":
                nbytes += sum(map(len, tensor.ravel().tolist()))
        return nbytes

    def cut(self, most: int) -> "list[Work]":
        """Itself, or parts of at most `most` rows where it may be cut."""
        if not self.batched or self.rows <= most:
            return [self]
        parts = cut_rows(self.inputs, most)
        sizes = [min(most, self.rows - at) for at in range(0, self.rows, most)]
        return [self._replace(inputs=part, rows=rows) for part, rows in zip(parts, sizes, strict=True)]


class Scored(NamedTuple):
    """The outputs that were asked for, by signature key, where the time went, and the devices that ran it.

    Outputs may be views of a whole batch's. Of a request that ran in parts, timing has the wait of the first, the sum
    of the runs and the largest batch, and devices may be several.
    """

    outputs: Mapping[str, Tensor]
    timing: Timing
    devices: tuple[Device, ...]


class BatchObserver(Protocol):
    """Told of every run, on the event loop."""

    def batch_done(self, device: str, rows: int, padded_rows: int, compute_ns: int) -> None:
        """device: the id of the one that ran it. rows: real ones; padded_rows: those it ran, padding included."""
        ...

"""Weights out of a seed: the same bits on every machine and with every numpy.

Each parameter has a stream of its own, PCG64 seeded with SHA-256 of "SEED/NAME", and every value is 24 of its raw bits
as a whole number k, even around 0: mean + spread * sqrt(3) * k / 2**23. numpy promises PCG64's raw bits for good, and
not those of its distributions; sums are of integers and the rest is single IEEE operations, so that neither a C library
nor the width of a processor's vectors matters.

Of a kernel, each output's weights are moved to a mean of 0. What comes out of a ReLU is positive on the whole; a deep
network with merely random weights carries that on and says nearly the same of every picture.
"""

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from accelserve.recipes.network import Parameter

_HALF = 2**23


class SeededWeights:
    """Values for any parameter."""

    description: str

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.description = f"seed {seed}"

    def array(self, parameter: Parameter) -> NDArray[np.float32]:
        """float32 of the parameter's checkpoint shape."""
        whole = self._whole_numbers(parameter)
        values = whole.astype(np.float32)  # 24 bits: exact
        if len(parameter.shape) == 4:
            per_output = whole.reshape(-1, parameter.shape[-1])
            middles = per_output.sum(axis=0, dtype=np.int64) / len(per_output)
            values.reshape(per_output.shape)[:] -= middles.astype(np.float32)
        values *= np.float32(parameter.spread * math.sqrt(3) / _HALF)
        values += np.float32(parameter.mean)
        return values.reshape(parameter.shape)

    def _whole_numbers(self, parameter: Parameter) -> NDArray[np.int32]:
        """From -2**23 to 2**23 - 1."""
        digest = hashlib.sha256(f"{self._seed}/{parameter.name}".encode()).digest()
        raw = np.random.PCG64(int.from_bytes(digest, "little")).random_raw((parameter.count + 1) // 2)
        numbers = raw.astype("<u8", copy=False).view("<u4")[: parameter.count]
        numbers >>= 8
        signed = numbers.view("<i4")
        signed -= _HALF
        return signed

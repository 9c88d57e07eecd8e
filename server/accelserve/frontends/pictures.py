"""Pictures to rows on a small pool: the decoders release the GIL, so the event loop goes on answering."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from accelserve.codecs.images import decode_picture
from accelserve.errors import Kind, ScoringError
from accelserve.models.servable import Servable
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import DType, Signature, Tensor


class PictureDecoder:
    """The decode pool. max_pixels: of one picture."""

    def __init__(self, threads: int, max_pixels: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="accelserve-decode")
        self._max_pixels = max_pixels

    async def decode(self, pictures: Sequence[bytes], preprocessing: Preprocessing, dtype: DType) -> Tensor:
        """Encoded pictures -> [n, H, W, C] or [n, C, H, W]. Raises ScoringError for the first that does not decode."""
        loop = asyncio.get_running_loop()
        rows = [loop.run_in_executor(self._pool, self._row, data, preprocessing, dtype) for data in pictures]
        done = await asyncio.gather(*rows)
        return done[0][None] if len(done) == 1 else np.stack(done)

    def _row(self, data: bytes, preprocessing: Preprocessing, dtype: DType) -> Tensor:
        return decode_picture(data, preprocessing, self._max_pixels, dtype=dtype)

    async def into_inputs(
        self, servable: Servable, signature: Signature, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Decode what arrived as a string tensor [n] for a model that takes one dense picture; else inputs as they are.

        Clients of the original services send `DT_STRING [n]` whatever the model's own input is.
        """
        preprocessing = servable.model.preprocessing.get(signature.name)
        if preprocessing is None or len(inputs) != 1:
            return inputs
        (name, tensor), spec = next(iter(inputs.items())), next(iter(signature.inputs.values()))
        if tensor.dtype != np.object_:
            return inputs
        if tensor.ndim > 1 or tensor.size == 0:
            shape = list(tensor.shape)
            raise ScoringError(
                Kind.INVALID, f'"{name}": encoded pictures come as string[n] with n above 0, got {shape}'
            )
        return {name: await self.decode(list(tensor.reshape(-1)), preprocessing, spec.dtype)}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

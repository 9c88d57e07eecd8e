"""The use case: which model, what exactly is asked, admit, queue, await, answer. Every protocol comes through here."""

import asyncio

from accelserve.batching.scheduler import Scored, Work
from accelserve.binding import bind
from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef, ScoreRequest, ScoreResponse
from accelserve.models.manager import ModelManager
from accelserve.models.servable import Servable
from accelserve.tensors import Signature


class Scorer:
    """Answers score requests; belongs to the event loop."""

    def __init__(self, models: ModelManager, clock: Clock) -> None:
        self._models = models
        self._clock = clock

    def resolve(self, ref: ModelRef) -> Servable:
        """The model a request means, so that codecs can decode against its signature. Raises ScoringError."""
        return self._models.resolve(ref)

    async def score(self, servable: Servable, signature: Signature, request: ScoreRequest) -> ScoreResponse:
        """Run one request, in whatever batch it meets.

        Raises ScoringError. Cancelling the caller takes the request out of its queue.
        """
        taken = servable.model.pixels.by_signature[signature.name].signature if request.pixels else signature
        bound = bind(taken, request, f"{servable.name}:{servable.version}")
        work = Work(
            taken,
            bound.inputs,
            tuple([key for _, key in bound.outputs]),
            bound.rows,
            bound.batched,
            request.deadline_ns,
            request.priority,
        )
        scored = await self._run(servable, work)
        devices = scored.devices
        return ScoreResponse(
            {name: scored.outputs[key] for name, key in bound.outputs},
            servable.name,
            servable.version,
            signature.name,
            devices[0].id if len(devices) == 1 else ", ".join([device.id for device in devices]),
            any(device.emulated for device in devices),
            scored.timing,
        )

    async def _run(self, servable: Servable, work: Work) -> Scored:
        future = servable.scheduler.submit(work)
        if work.deadline_ns is None:
            return await future
        # The queue drops what expires in it; a deadline that passes while the model runs is answered here, on time.
        left_s = max(0.0, (work.deadline_ns - self._clock.now_ns()) / 1e9)
        try:
            async with asyncio.timeout(left_s):
                return await future
        except TimeoutError:
            message = f"{servable.name}:{servable.version}: the deadline passed before the answer was there"
            raise ScoringError(Kind.DEADLINE, message) from None

"""The use case: which model, what exactly is asked, admit, queue, await, answer. Every protocol comes through here."""

import asyncio

from accelserve.batching.scheduler import Scored, Work
from accelserve.clock import Clock
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ModelRef, Priority, ScoreRequest, ScoreResponse
from accelserve.models.manager import ModelManager
from accelserve.models.servable import Servable
from accelserve.tensors import Signature
from accelserve.ticket import Ticket


class Scorer:
    """Answers score requests; belongs to the event loop."""

    def __init__(self, models: ModelManager, clock: Clock) -> None:
        self._models = models
        self._clock = clock

    def resolve(self, ref: ModelRef) -> Servable:
        """The model a request means, so that codecs can decode against its signature. Raises ScoringError."""
        return self._models.resolve(ref)

    def check(self, servable: Servable, deadline_ns: int | None, priority: Priority) -> None:
        """Raise what `score` would raise at once for want of time, before anything is decoded in vain."""
        servable.scheduler.check(1, deadline_ns, priority)

    async def score(self, servable: Servable, signature: Signature, request: ScoreRequest) -> ScoreResponse:
        """Run one request, in whatever batch it meets.

        Raises ScoringError. Cancelling the caller takes the request out of its queue.
        """
        taken = servable.model.pixels.by_signature[signature.name].signature if request.pixels else signature
        binder = servable.binder(taken)
        bound = binder.bind(request)
        work = Work(
            taken,
            bound.inputs,
            bound.keys,
            bound.rows,
            bound.batched,
            request.deadline_ns,
            request.priority,
            bound.kind,
        )
        ticket = servable.scheduler.submit(work)
        scored = await (ticket if work.deadline_ns is None else self._in_time(ticket, servable, work.deadline_ns))
        outputs, timing, devices = scored
        binder.took(timing.compute_ns, timing.batch_rows)
        if bound.renamed:
            outputs = {name: outputs[key] for name, key in bound.outputs}
        return ScoreResponse(
            outputs,
            servable.name,
            servable.version,
            signature.name,
            devices[0].id if len(devices) == 1 else ", ".join([device.id for device in devices]),
            devices[0].emulated if len(devices) == 1 else any(device.emulated for device in devices),
            timing,
        )

    async def _in_time(self, ticket: Ticket[Scored], servable: Servable, deadline_ns: int) -> Scored:
        """The queue drops what expires in it; a deadline that passes while the model runs is answered here, on time."""

        def overdue() -> None:
            if not ticket.done():
                message = f"{servable.name}:{servable.version}: the deadline passed before the answer was there"
                ticket.fail(ScoringError(Kind.DEADLINE, message))

        left_s = max(0.0, (deadline_ns - self._clock.now_ns()) / 1e9)
        timer = asyncio.get_running_loop().call_later(left_s, overdue)
        try:
            return await ticket
        finally:
            timer.cancel()

"""A batch's report is handed out: to each part its outcome, to the observer each run.

None of those told can keep the others from being told.
"""

import logging
from collections.abc import Sequence

from accelserve.batching.batch_run import Report, Run
from accelserve.batching.request import Part, Ride
from accelserve.batching.work import BatchObserver
from accelserve.errors import Kind, ScoringError

logger = logging.getLogger("accelserve.batching")


def settle(parts: Sequence[Part], report: Report, ride: Ride, model: str, *, errors: bool) -> None:
    """Tell the parts that failed, or those that did not. report: with an answer for each part. model: for messages."""
    for position, (part, (run, outcome)) in enumerate(zip(parts, report.answers, strict=True)):
        if isinstance(outcome, ScoringError) is not errors:
            continue
        try:
            part.took(run, outcome, position, ride)
        except Exception as error:
            logger.exception("an answer of %s was lost", model)
            message = f"{model} lost an answer: unforeseen {type(error).__name__}"
            part.fail(ScoringError(Kind.INTERNAL, message))


def observe(observer: BatchObserver, device: str, runs: Sequence[Run], model: str) -> None:
    for run in runs:
        try:
            observer.batch_done(device, run.rows, run.padded_rows, run.compute_ns)
        except Exception:
            logger.exception("the observer of %s failed", model)

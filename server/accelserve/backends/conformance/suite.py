"""All checks in one class: a sample inherits from it and says what is to be tested."""

from accelserve.backends.conformance.answers import AnswerChecks
from accelserve.backends.conformance.cancellation import CancellationChecks
from accelserve.backends.conformance.inventory import InventoryChecks
from accelserve.backends.conformance.leases import LeaseChecks
from accelserve.backends.conformance.lent_memory import LentMemoryChecks
from accelserve.backends.conformance.lifecycle import LifecycleChecks
from accelserve.backends.conformance.loss import LossChecks
from accelserve.backends.conformance.pictures import PictureChecks
from accelserve.backends.conformance.preparation import PreparationChecks
from accelserve.backends.conformance.refusals import RefusalChecks


class BackendConformance(
    InventoryChecks,
    PreparationChecks,
    AnswerChecks,
    LentMemoryChecks,
    RefusalChecks,
    CancellationChecks,
    LeaseChecks,
    LifecycleChecks,
    LossChecks,
):
    """The checks that every back end passes; what a subclass says is in `Sample`."""


class PictureConformance(PictureChecks, BackendConformance):
    """And those of one whose sessions take pixels (`TakesPixels`); the subclass says `preprocessing` besides."""

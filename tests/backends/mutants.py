"""Which check of the kit is meant for which broken back end; `Test_MUTANT` of each.

Run by test_conformance_mutants.py alone: the check that is named has to fail.
"""

from dataclasses import dataclass, replace
from typing import Any

import broken_backends as backends
import broken_sessions as broken
import numpy as np
from broken_backends import Exclusive, ExclusivePlainSample, PictureSample, PlainSample, SoundBackend
from broken_sessions import Lending, TakingPixels, answering, closing, running, tolerant

from accelserve.backends.conformance.sample import Sample


@dataclass(frozen=True)
class Mutant:
    """check: that has to fail. broken: a back end, or the session of an otherwise sound one."""

    check: str
    broken: type
    sample: type[Sample] = PlainSample

    @property
    def name(self) -> str:
        return self.check.removeprefix("test_")

    def test_class(self) -> type[Sample]:
        is_backend = issubclass(self.broken, SoundBackend)
        backend = self.broken if is_backend else type("Broken", (SoundBackend,), {"session": self.broken})
        return type(f"Test_{self.name}", (self.sample,), {"make_backend": lambda sample: backend()})


def without(batch: Any, name: str) -> Any:
    return replace(batch, inputs={key: tensor for key, tensor in batch.inputs.items() if key != name})


def cast(batch: Any) -> Any:
    return replace(batch, inputs={key: tensor.astype(np.float32) for key, tensor in batch.inputs.items()})


def cut(batch: Any) -> Any:
    return replace(batch, inputs={key: tensor.reshape(-1, 2)[:1] for key, tensor in batch.inputs.items()})


MUTANTS = (
    Mutant("test_it_speaks_this_version_of_the_interface", backends.OtherVersion),
    Mutant("test_its_inventory_explains_each_kind_that_it_lacks", SoundBackend, backends.LacksAGpu),
    Mutant("test_its_devices_have_ids_of_their_own_that_begin_with_their_kind", backends.DeviceTwice),
    Mutant("test_its_features_are_told_with_what_they_lack", backends.NamelessFeature),
    Mutant("test_its_capabilities_name_the_samples_format", backends.NoFormat),
    Mutant("test_its_limits_can_be_kept", backends.NoRows),
    Mutant("test_a_device_of_the_inventory_is_healthy", backends.Ill),
    Mutant("test_progress_goes_from_0_to_1_and_never_back", backends.ProgressBackwards),
    Mutant("test_what_was_prepared_once_comes_from_the_cache", backends.PreparesAgain),
    Mutant("test_preparing_leaves_the_model_as_it_was", backends.WritesIntoTheModel),
    Mutant("test_preparing_leaves_a_session_that_serves_alone", backends.ClosesToPrepare),
    Mutant("test_a_missing_model_is_refused_with_a_reason", backends.FindsNoFile),
    Mutant("test_an_unknown_setting_is_refused_by_name", backends.TakesAnySetting),
    Mutant("test_the_session_runs_on_the_device_that_was_asked_for", backends.ElsewhereThanAsked),
    Mutant(
        "test_every_output_has_its_declared_type_and_a_fitting_shape",
        answering(lambda self, batch, answer: answer.astype(np.float64)),
    ),
    Mutant(
        "test_only_the_outputs_asked_for_are_returned",
        running(
            lambda self, batch: replace(
                self.inner.run(batch), outputs={**self.inner.run(batch).outputs, "z": np.zeros(1)}
            )
        ),
    ),
    Mutant(
        "test_the_same_batch_gives_the_same_answer",
        answering(lambda self, batch, answer: answer + np.float32(self.runs)),
    ),
    Mutant("test_two_sessions_give_the_same_answer", answering(lambda self, batch, answer: answer + self.number)),
    Mutant(
        "test_a_row_gets_the_same_answer_alone_and_in_a_batch",
        answering(lambda self, batch, answer: answer + len(answer)),
    ),
    Mutant("test_the_samples_rows_differ_so_that_a_mix_up_would_show", SoundBackend, backends.EqualRows),
    Mutant("test_padding_changes_no_answer", answering(lambda self, batch, answer: answer + len(answer) - batch.rows)),
    Mutant("test_the_inputs_are_left_as_they_were", running(broken.doubled_in_place)),
    Mutant("test_inputs_that_cannot_be_written_to_are_read", running(broken.doubled_in_place_and_put_back)),
    Mutant("test_inputs_that_are_not_contiguous_are_read_right", running(broken.without_looking_at_strides)),
    Mutant(
        "test_an_answer_shares_no_memory_with_its_inputs_or_with_another",
        answering(lambda self, batch, answer: broken.x_of(batch)),
    ),
    Mutant("test_an_answer_stays_when_others_are_made_and_the_session_is_closed", answering(broken.into_one_array)),
    Mutant("test_runs_that_overlap_get_their_own_answers", backends.OverlapsBadly),
    Mutant("test_a_bad_row_is_reported_alone", running(broken.blaming_another_row)),
    Mutant("test_memory_that_it_lends_fits_the_signature", broken.LendingOtherShapes),
    Mutant("test_a_batch_in_memory_that_it_lends_gets_the_same_answer", answering(broken.zero_in_lent_memory, Lending)),
    Mutant("test_an_answer_stays_when_lent_memory_is_filled_again", answering(broken.into_lent_memory, Lending)),
    Mutant("test_lent_memory_that_is_never_run_hurts_nobody", running(broken.of_lent_memory, Lending)),
    Mutant("test_no_memory_is_lent_for_what_it_does_not_have", broken.LendingForAnything),
    Mutant("test_an_unknown_output_is_refused", tolerant(lambda batch: replace(batch, outputs=("y",)))),
    Mutant("test_an_unknown_input_is_refused", tolerant(lambda batch: without(batch, "no such input"))),
    Mutant(
        "test_a_missing_input_is_refused",
        tolerant(lambda batch: replace(batch, inputs=batch.inputs or {"x": np.zeros((1, 2), np.float32)})),
    ),
    Mutant("test_an_unknown_signature_is_refused", tolerant(lambda batch: replace(batch, signature="serving_default"))),
    Mutant("test_a_wrong_dtype_is_refused_and_not_cast", tolerant(cast)),
    Mutant("test_a_wrong_shape_is_refused_where_shapes_are_strict", tolerant(cut)),
    Mutant("test_a_caller_who_leaves_the_queue_frees_his_place_and_nothing_else", running(broken.of_the_batch_before)),
    Mutant("test_a_caller_who_leaves_in_flight_leaves_the_next_batch_alone", running(broken.of_the_batch_before)),
    Mutant(
        "test_a_caller_who_leaves_in_flight_leaves_his_batch_mates_alone",
        answering(lambda self, batch, answer: answer[::-1]),
    ),
    Mutant("test_a_second_holder_is_refused_and_told_the_first", backends.IdsThatChange, ExclusivePlainSample),
    Mutant("test_an_exclusive_device_takes_no_model_without_a_lease", backends.NeedsNoLease, ExclusivePlainSample),
    Mutant("test_a_lease_of_another_device_is_no_lease", backends.TakesAnyLease, ExclusivePlainSample),
    Mutant("test_the_lease_is_the_servers_to_release", backends.ReleasesTheLease, ExclusivePlainSample),
    Mutant("test_after_close_and_release_another_has_the_device", backends.LoadsOnceExclusive, ExclusivePlainSample),
    Mutant("test_closing_twice_does_nothing", closing(broken.close_once)),
    Mutant("test_a_session_that_never_ran_is_closed", broken.ClosedOnlyAfterARun),
    Mutant("test_a_closed_session_refuses_to_run", closing(lambda self: None)),
    Mutant("test_close_waits_for_the_run_under_way", broken.ClosedWithoutWaiting),
    Mutant("test_two_threads_may_close_at_once", closing(broken.close_by_one_thread_at_a_time)),
    Mutant("test_a_second_session_works_after_the_first_was_closed", backends.LoadsOnce),
    Mutant("test_closing_one_session_leaves_another_alone", backends.ClosesAll),
    Mutant("test_threads_and_files_are_given_back", closing(broken.leak)),
    Mutant("test_a_device_lost_mid_batch_fails_the_run_as_lost", running(broken.internal_when_lost)),
    Mutant("test_every_run_after_the_loss_fails_as_lost", broken.FailingOnceWhenLost),
    Mutant("test_health_says_that_the_device_is_lost_and_why", backends.HealthyForEver),
    Mutant("test_a_session_on_a_lost_device_is_closed_all_the_same", closing(broken.close_but_not_when_lost)),
    Mutant(
        "test_pixels_get_the_answer_of_the_row_that_they_become",
        type("Broken", (TakingPixels,), {"mean": np.zeros(3, np.float32)}),
        PictureSample,
    ),
    Mutant(
        "test_pixels_in_memory_that_it_lends_get_the_same_answer",
        type("Broken", (TakingPixels,), {"pixels_dtype": np.float32}),
        PictureSample,
    ),
    Mutant("test_pixels_and_rows_in_turn_leave_each_other_alone", broken.KeepingPixels, PictureSample),
    Mutant(
        "test_pixels_of_another_dtype_or_size_are_refused",
        type("Broken", (TakingPixels,), {"checked": False}),
        PictureSample,
    ),
)

SOUND = {
    "Test_sound": Mutant("sound", SoundBackend),
    "Test_sound_lending": Mutant("sound_lending", Lending),
    "Test_sound_exclusive": Mutant("sound_exclusive", Exclusive, ExclusivePlainSample),
    "Test_sound_pixels": Mutant("sound_pixels", TakingPixels, PictureSample),
}
globals().update({f"Test_{mutant.name}": mutant.test_class() for mutant in (*MUTANTS, *SOUND.values())})

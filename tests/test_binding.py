"""TF Serving's Predict rules for names, defaults, dtypes and outputs (specs/tfserving.md 1.3 and 1.5)."""

import numpy as np
import pytest

from accelserve.batching.work import Work
from accelserve.binding import Binder, bind
from accelserve.errors import Kind, ScoringError
from accelserve.messages import ScoreRequest
from accelserve.tensors import BY_NAME, Signature, TensorSpec

FLOAT = BY_NAME["float32"]


def spec(name, tensor_name=None, shape=(-1, 2), dtype=FLOAT):
    return TensorSpec(name, dtype, shape, tensor_name or name)


def signature(inputs, outputs=(), defaults=None, strict=True):
    outputs = outputs or (spec("y", "Softmax:0"),)
    return Signature(
        "serving_default",
        {s.name: s for s in inputs},
        {s.name: s for s in outputs},
        defaults=defaults or {},
        strict_shapes=strict,
    )


ONE = signature([spec("images", "Placeholder:0")], [spec("scores", "Softmax:0"), spec("classes", "ArgMax:0")])
TWO = signature([spec("a"), spec("b")])
ROWS = np.ones((3, 2), np.float32)


def refused(signature, inputs, output_filter=()):
    with pytest.raises(ScoringError) as caught:
        bind(signature, ScoreRequest(inputs, output_filter), "m:1")
    assert caught.value.kind is Kind.INVALID
    return caught.value.message


def test_a_question_in_signature_keys_is_answered_in_signature_keys():
    bound = bind(ONE, ScoreRequest({"images": ROWS}), "m:1")
    assert bound.outputs == (("scores", "scores"), ("classes", "classes"))
    assert (bound.rows, bound.batched) == (3, True)


@pytest.mark.parametrize("name", ["Placeholder:0", "Placeholder"])
def test_a_question_in_tensor_names_is_answered_in_tensor_names(name):
    bound = bind(ONE, ScoreRequest({name: ROWS}), "m:1")
    assert bound.inputs.keys() == {"images"}
    assert bound.outputs == (("Softmax:0", "scores"), ("ArgMax:0", "classes"))


def test_an_output_filter_is_echoed_in_the_clients_words():
    bound = bind(ONE, ScoreRequest({"images": ROWS}, ("Softmax:0",)), "m:1")
    assert bound.outputs == (("Softmax:0", "scores"),)


def test_an_unknown_output_is_refused_with_the_known_ones():
    message = "output tensor alias not found in signature: nope Outputs expected to be in the set {classes,scores}."
    assert refused(ONE, {"images": ROWS}, ("nope",)) == message


@pytest.mark.parametrize("twice", [("scores", "scores"), ("scores", "Softmax:0")])
def test_an_output_asked_twice_is_refused_under_either_name(twice):
    assert refused(ONE, {"images": ROWS}, twice) == f"duplicate output tensor alias: {twice[1]}"


def test_no_inputs_names_what_is_missing():
    assert refused(TWO, {}) == (
        "input size does not match signature: 0!=2 len({}) != len({a,b}). Sent extra: {}. Missing but required: {a,b}."
    )


def test_an_extra_input_is_named():
    assert "Sent extra: {z}. Missing but required: {}." in refused(ONE, {"images": ROWS, "z": ROWS})


def test_one_wrong_name_of_the_right_count_names_the_missing_alias_and_its_feed():
    message = refused(ONE, {"z": ROWS})
    assert message.startswith("Signature input alias: images(feed name: Placeholder:0) not found in request")


def test_an_extra_name_beside_defaults_is_refused():
    with_default = signature([spec("a"), spec("b")], defaults={"b": ROWS})
    assert refused(with_default, {"a": ROWS, "z": ROWS}).startswith("Inputs contains invalid name.")


def test_defaults_fill_what_a_request_leaves_out():
    default = np.zeros((1, 2), np.float32)
    bound = bind(signature([spec("a"), spec("b")], defaults={"b": default}), ScoreRequest({"a": ROWS}), "m:1")
    assert bound.inputs["b"] is default
    assert not bound.batched  # 3 rows and 1 row cannot ride with others


def test_the_same_input_under_both_names_is_refused():
    assert "Sent extra: {Placeholder:0}" in refused(ONE, {"images": ROWS, "Placeholder:0": ROWS})


def test_a_wrong_dtype_names_the_tensor_and_both_types():
    message = refused(ONE, {"images": ROWS.astype(np.float64)})
    assert message == 'm:1 "images": want float32[-1,2], got float64[3,2]'


def test_a_wrong_shape_is_refused_where_the_signature_is_strict():
    assert refused(ONE, {"images": np.ones((3, 5), np.float32)}) == 'm:1 "images": want float32[-1,2], got float32[3,5]'


def test_a_wrong_shape_is_the_graphs_business_where_tf_serving_leaves_it_there():
    lenient = signature([spec("x", shape=(-1, 1))], strict=False)
    assert bind(lenient, ScoreRequest({"x": np.ones(3, np.float32)}), "m:1").rows == 3
    assert not bind(lenient, ScoreRequest({"x": np.float32(2).reshape(())}), "m:1").batched


def test_zero_rows_ride_alone():
    bound = bind(ONE, ScoreRequest({"images": np.ones((0, 2), np.float32)}), "m:1")
    assert (bound.rows, bound.batched) == (1, False)


def test_a_model_without_a_batch_axis_is_never_batched():
    fixed = signature([spec("x", shape=(2,))], [spec("y", shape=(2,))])
    assert not bind(fixed, ScoreRequest({"x": np.ones(2, np.float32)}), "m:1").batched


@pytest.mark.parametrize("outputs", [[spec("y", "Softmax:0")], [spec("y", "Softmax:0"), spec("z", "ArgMax:0")]])
def test_who_speaks_in_tensor_names_rides_with_who_speaks_in_signature_keys(outputs):
    known = signature([spec("images", "Placeholder:0")], outputs)
    binder = Binder(known, "m:1")

    def group(name, output_filter=()):
        bound = binder.bind(ScoreRequest({name: ROWS}, output_filter))
        return Work(known, bound.inputs, bound.keys, bound.rows, bound.batched, kind=bound.kind).group

    others = [group("images"), group("Placeholder:0"), group("images", tuple(known.outputs)[::-1])]
    assert others == [group("images")] * 3


def test_what_a_row_takes_falls_at_once_and_rises_by_an_eighth():
    binder = Binder(ONE, "m:1")
    seen = []
    for run_ns, rows in ((800, 2), (0, 0), (300, 1), (8300, 1), (500, 2)):
        binder.took(run_ns, rows)
        seen.append(binder.row_ns)
    assert seen == [400, 400, 300, 1300, 250]

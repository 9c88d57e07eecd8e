from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from accelserve.backends.base import Batch, BatchResult, Placement
from accelserve.backends.host import cpu_device
from accelserve.backends.saved_model_onnx.cut_model import CutSignature, Part, Pictures
from accelserve.backends.saved_model_onnx.cut_session import CutSession, OpenSignature, plan
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, Signature, TensorSpec

INT, STRING = BY_NAME["int64"], BY_NAME["string"]

# text -> (host) its length -> (dense) doubled -> (tail) as text; number goes straight to the dense part.
SIGNATURE = Signature(
    "serving_default",
    {"text": TensorSpec("text", STRING, (-1,), "text:0"), "number": TensorSpec("number", INT, (-1,), "number:0")},
    {
        "sum": TensorSpec("sum", INT, (-1,), "sum:0"),
        "said": TensorSpec("said", STRING, (-1,), "said:0"),
        "length": TensorSpec("length", INT, (-1,), "length:0"),
        "echo": TensorSpec("echo", INT, (-1,), "number:0"),
    },
)
CUT = CutSignature(
    SIGNATURE,
    {"text": "text:0", "number": "number:0"},
    {"sum": "sum:0", "said": "said:0", "length": "length:0", "echo": "number:0"},
    {
        "host": Part("host.pb", {"feed/text:0": "text:0"}, {"length:0": "length:0"}),
        "dense": Part("model.onnx", {"length": "length:0", "number": "number:0"}, {"sum": "sum:0"}),
        "tail": Part("tail.pb", {"feed/sum:0": "sum:0"}, {"said:0": "said:0"}),
    },
)


NUMBERS = replace(SIGNATURE, inputs={key: TensorSpec(key, INT, (-1,), f"{key}:0") for key in ("text", "number")})


class Graph:
    """Host part and tail at once."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.closed = 0

    def run(self, values, wanted, takes_strings):
        self.asked.append(tuple(wanted))
        if "length:0" in wanted:
            return {"length:0": np.array([len(text) for text in values["text:0"]])}
        return {"said:0": np.array([str(n).encode() for n in values["sum:0"]], object)}

    def close(self):
        self.closed += 1


class Dense:
    signatures = MappingProxyType({})
    device = cpu_device()
    placement = Placement()

    def __init__(self, errors=None) -> None:
        self.batches: list[Batch] = []
        self.errors = errors or {}
        self.closed = 0

    def run(self, batch):
        self.batches.append(batch)
        return BatchResult({"sum": batch.inputs["length"] + batch.inputs["number"]}, self.errors)

    def close(self):
        self.closed += 1


def opened(dense=None, graph=None):
    dense, graph = dense or Dense(), graph or Graph()
    one = OpenSignature(CUT, dense, {"host": graph, "tail": graph})
    return CutSession("m:1", {"serving_default": one}, cpu_device(), Placement()), dense, graph


INPUTS = {"text": np.array([b"ab", b"abcd"], object), "number": np.array([10, 20])}


def ask(session, *outputs, inputs=INPUTS):
    return session.run(Batch("serving_default", inputs, outputs, 2))


def test_values_go_from_host_to_dense_to_tail():
    session, dense, _ = opened()
    outputs = ask(session, "sum", "said", "length", "echo").outputs
    assert outputs["sum"].tolist() == [12, 24]
    assert outputs["said"].tolist() == [b"12", b"24"]
    assert outputs["length"].tolist() == [2, 4]
    assert outputs["echo"].tolist() == [10, 20]
    assert (dense.batches[0].rows, dense.batches[0].outputs) == (2, ("sum",))


@pytest.mark.parametrize(
    ("outputs", "parts"),
    [
        (("said",), ["host", "dense", "tail"]),
        (("sum",), ["host", "dense"]),
        (("length",), ["host"]),
        (("echo",), []),
    ],
)
def test_only_the_parts_that_an_output_needs_run(outputs, parts):
    assert [kind for kind, _, _ in plan(CUT, outputs)] == parts


def test_an_error_of_one_row_in_the_dense_part_is_passed_on():
    error = ScoringError(Kind.INVALID, "row 1")
    session, _, _ = opened(Dense({1: error}))
    assert ask(session, "said").item_errors == {1: error}


def test_an_input_that_does_not_fit_is_refused_before_any_part_runs():
    session, dense, graph = opened()
    with pytest.raises(ScoringError, match=r'"number": want int64\[-1\], got float32\[2\]'):
        ask(session, "said", inputs={**INPUTS, "number": np.ones(2, np.float32)})
    assert (dense.batches, graph.asked) == ([], [])


class Lending(Dense):
    """A dense part with memory of its own."""

    def buffers(self, signature, rows):
        return {"length": np.zeros(rows, np.int64), "number": np.ones(rows, np.int64)}


def test_memory_is_lent_only_where_the_dense_part_is_the_whole_model():
    assert opened(Lending())[0].buffers("serving_default", 3) is None
    whole = CutSignature(SIGNATURE, {"text": "length:0", "number": "number:0"}, {}, {"dense": CUT.parts["dense"]})
    session = CutSession("m:1", {"s": OpenSignature(whole, Lending(), {})}, cpu_device(), Placement())
    assert {key: array.tolist() for key, array in session.buffers("s", 2).items()} == {"text": [0, 0], "number": [1, 1]}
    plain = CutSession("m:1", {"s": OpenSignature(whole, Dense(), {})}, cpu_device(), Placement())
    assert plain.buffers("s", 2) is None


class OfFloats(Dense):
    """A dense part that takes pixels; it gives back what it is given."""

    def take_pixels(self, signature, steps):
        image = TensorSpec("x", BY_NAME["uint8"], (-1, *steps.size, steps.channels), "x")
        return Signature("dense of pixels", {"x": image}, {})

    def buffers(self, signature, rows):
        return {"x": np.zeros((rows, 2, 2, 3), np.uint8)} if signature == "dense of pixels" else None

    def run(self, batch):
        self.batches.append(batch)
        return BatchResult({"y": batch.inputs["x"]})


def of_pictures(dense, **others):
    image = TensorSpec("image", BY_NAME["float32"], (-1, 2, 2, 3), "image:0")
    scores = TensorSpec("scores", BY_NAME["float32"], (-1, 2, 2, 3), "scores:0")
    part = Part("model.onnx", {"x": "image:0"}, {"y": "scores:0"})
    signature = Signature("s", {"image": image}, {"scores": scores})
    cut = CutSignature(signature, {"image": "image:0"}, {"scores": "scores:0"}, {"dense": part, **others})
    return CutSession("m:1", {"s": OpenSignature(cut, dense, {})}, cpu_device(), Placement())


def test_pixels_go_to_a_dense_part_that_is_the_whole_model_and_takes_them():
    session = of_pictures(OfFloats())
    taken = session.take_pixels("s", Preprocessing((2, 2)))
    assert list(session.signatures) == ["s"]
    assert str(taken.inputs["image"]) == "uint8[-1,2,2,3]"
    assert taken.outputs == session.signatures["s"].outputs
    assert session.buffers(taken.name, 3)["image"].shape == (3, 2, 2, 3)
    pixels, dense = np.ones((1, 2, 2, 3), np.uint8), session._opened["s"].dense
    assert session.run(Batch(taken.name, {"image": pixels}, ("scores",), 1)).outputs["scores"] is pixels
    session.run(Batch("s", {"image": pixels.astype(np.float32)}, ("scores",), 1))
    assert [batch.signature for batch in dense.batches] == ["dense of pixels", "serving_default"]


@pytest.mark.parametrize(
    ("dense", "others"),
    [(OfFloats(), {"host": Part("host.pb", {}, {})}), (Dense(), {})],
    ids=["a part in TensorFlow", "a dense part without the ability"],
)
def test_pixels_are_refused_where_the_device_does_not_run_all_or_cannot(dense, others):
    with pytest.raises(ScoringError, match='signature "s" does not run on cpu:0 alone') as refusal:
        of_pictures(dense, **others).take_pixels("s", Preprocessing((2, 2)))
    assert refusal.value.kind is Kind.UNSUPPORTED


FOUND = Pictures((2, 2), 3, (127.5,), (1 / 127.5,), "float32", "legacy", True, pixel_error=3.0, output_error=0.01)


class OfRows(OfFloats):
    signatures = MappingProxyType(
        {
            "serving_default": Signature(
                "serving_default", {"x": TensorSpec("x", BY_NAME["float32"], (-1, 2, 2, 3), "x")}, {}
            )
        }
    )


def of_strings(found=FOUND, dense=None, defaults=(), tail=None):
    """string [-1] -> (host, not loaded) image -> (dense) scores."""
    image = TensorSpec("image", STRING, (-1,), "image:0")
    scores = TensorSpec("scores", BY_NAME["float32"], (-1, 2, 2, 3), "scores:0")
    parts = {
        "host": Part("host.pb", {"feed/image:0": "image:0"}, {"stack:0": "stack:0"}),
        "dense": Part("model.onnx", {"x": "stack:0"}, {"y": "scores:0"}),
        **({"tail": tail} if tail else {}),
    }
    signature = Signature("s", {"image": image}, {"scores": scores}, defaults=MappingProxyType(dict(defaults)))
    cut = CutSignature(signature, {"image": "image:0"}, {"scores": "scores:0"}, parts, found, "Slice crop")
    return CutSession("m:1", {"s": OpenSignature(cut, dense or OfRows(), {})}, cpu_device(), Placement())


def test_decoded_pictures_go_to_the_dense_part_under_the_signatures_own_names():
    session = of_strings()
    taken = session.take_decoded("s")
    assert (taken.pixel_error, taken.output_error, taken.preprocessing.resampling) == (3.0, 0.01, "legacy")
    assert list(session.signatures) == ["s"]
    (spec,) = taken.signature.inputs.values()
    assert (str(spec), spec.tensor_name) == ("float32[-1,2,2,3]", "image:0")
    rows = np.ones((1, 2, 2, 3), np.float32)
    batch = Batch(taken.signature.name, {"image": rows}, ("scores",), 1)
    assert session.run(batch).outputs["scores"] is rows
    pixels = session.take_pixels(taken.signature.name, taken.preprocessing)
    assert str(pixels.inputs["image"]) == "uint8[-1,2,2,3]"
    assert session.buffers(pixels.name, 3)["image"].shape == (3, 2, 2, 3)


@pytest.mark.parametrize(
    ("session", "reason"),
    [
        (of_strings(found=None), "Slice crop"),
        (of_strings(defaults={"image": np.array([b""], object)}), "its input has a default value"),
        (of_strings(tail=Part("tail.pb", {"f": "image:0"}, {"t": "t"})), "takes its strings or pixels too"),
        (of_pictures(OfFloats()), "it has no host part"),
    ],
)
def test_a_host_part_that_cannot_be_stood_in_for_says_why(session, reason):
    with pytest.raises(ScoringError, match=f'signature "s" needs its own decoder: .*{reason}') as refusal:
        session.take_decoded("s")
    assert refusal.value.kind is Kind.UNSUPPORTED


def test_pixels_are_refused_where_the_picture_itself_is_an_output():
    session = of_pictures(OfFloats())
    opened = session._opened["s"]
    session._opened["s"] = replace(opened, cut=replace(opened.cut, outputs={"scores": "image:0"}))
    with pytest.raises(ScoringError, match='signature "s" gives image:0 back, not pixels'):
        session.take_pixels("s", Preprocessing((2, 2)))


def test_an_input_that_is_given_back_is_not_the_memory_that_the_next_batch_is_written_to():
    memory = {"length": np.zeros(2, np.int64), "number": np.array([1, 2])}
    dense = Lending()
    dense.buffers = lambda signature, rows: memory
    whole = replace(CUT, outputs={"sum": "sum:0", "echo": "number:0"}, parts={"dense": CUT.parts["dense"]})
    whole = replace(whole, inputs={"text": "length:0", "number": "number:0"}, signature=NUMBERS)
    session = CutSession("m:1", {"serving_default": OpenSignature(whole, dense, {})}, cpu_device(), Placement())
    lent = session.buffers("serving_default", 2)
    first = ask(session, "echo", "sum", inputs=lent).outputs["echo"]
    lent["number"][:] = 7
    assert first.tolist() == [1, 2], "an answer must not show the rows of the next request"


def test_closing_closes_a_shared_part_once_and_later_runs_are_refused():
    session, dense, graph = opened()
    session.close()
    session.close()
    assert (dense.closed, graph.closed) == (1, 1)
    with pytest.raises(ScoringError, match="closed"):
        ask(session, "sum")


def test_it_is_steady_where_a_steady_dense_part_is_the_whole_model():
    def steady(dense, graphs):
        dense.steady = True
        return CutSession("m:1", {"s": OpenSignature(CUT, dense, graphs)}, cpu_device(), Placement()).steady

    assert steady(Dense(), {})
    assert not steady(Dense(), {"host": Graph()})
    assert not opened()[0].steady

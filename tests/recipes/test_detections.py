"""Detections in the graph against plain numpy, written from the rules and not from the graph."""

import numpy as np
import onnxruntime
import pytest

from accelserve.recipes.seeded import SeededWeights
from accelserve.recipes.ssd import Ssd, ssd
from accelserve.recipes.writing import write_model

SIZES = ((21, 45), (45, 99), (99, 153), (153, 207), (207, 261), (261, 315))
STEPS = (8, 16, 32, 64, 100, 300)
RATIOS = ((2, 0.5), *((2, 0.5, 3, 1 / 3),) * 3, (2, 0.5), (2, 0.5))
CLASSES = 4


def quiet(what, done, total):
    pass


class Certain(SeededWeights):
    """So that many anchors are sure of something, and boxes move."""

    def array(self, parameter):
        values = super().array(parameter)
        return (
            values * np.float32(0.3 if "block4" in parameter.name else 1.2)
            if "conv_cls/weights" in parameter.name
            else values
        )


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """Three pictures: the detections together, alone, and the raw maps that they are of."""
    folder = tmp_path_factory.mktemp("ssd")
    network = ssd(Ssd(width=2, detections=True), CLASSES)
    for tensor in network.device_outputs:
        network.output(tensor, (0, 0, 0, 0))
    for value in network.outputs[3:]:
        del value.type.tensor_type.shape.dim[:]
        value.type.tensor_type.ClearField("shape")
    write_model(network, Certain(0), {}, folder, quiet)
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    pictures = np.random.default_rng(2).normal(scale=64, size=(3, 300, 300, 3)).astype(np.float32)
    pictures[2] = 0
    together = session.run(None, {"InputImage:0": pictures})
    return together[:3], [session.run(None, {"InputImage:0": p[None]})[:3] for p in pictures], together[3:]


def corners(anchor, offsets):
    """anchor: centre y, centre x, height, width."""
    y, x, height, width = anchor
    centre_x, centre_y = offsets[0] * 0.1 * width + x, offsets[1] * 0.1 * height + y
    width, height = width * np.exp(offsets[2] * 0.2), height * np.exp(offsets[3] * 0.2)
    box = centre_y - height / 2, centre_x - width / 2, centre_y + height / 2, centre_x + width / 2
    return np.clip(box, 0, 1)


def anchors(index, row, column):
    small, large = SIZES[index]
    y, x = ((place + 0.5) * STEPS[index] / 300 for place in (row, column))
    sides = [(small, small), (np.sqrt(small * large),) * 2]
    sides += [(small / np.sqrt(ratio), small * np.sqrt(ratio)) for ratio in RATIOS[index]]
    return [(y, x, height / 300, width / 300) for height, width in sides]


def overlap(one, other):
    height = max(min(one[2], other[2]) - max(one[0], other[0]), 0)
    width = max(min(one[3], other[3]) - max(one[1], other[1]), 0)
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return height * width / (area - height * width) if height * width else 0.0


def found_by_numpy(raw, picture):
    """(score, class, box), the most probable first."""
    found = []
    for index, (logits, offsets) in enumerate(zip(raw[:6], raw[6:], strict=True)):
        logits, offsets = logits[picture].astype(np.float64), offsets[picture].astype(np.float64)
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probable = powers / powers.sum(axis=-1, keepdims=True)
        for row, column, anchor, kind in np.argwhere(probable[..., 1:] > 0.5):
            box = corners(anchors(index, row, column)[anchor], offsets[row, column, anchor])
            found.append((probable[row, column, anchor, kind + 1], kind + 1, box))
    found = sorted(found, key=lambda each: -each[0])[:400]
    kept = []
    for score, kind, box in found:
        if all(other != kind or overlap(box, better) <= 0.45 for _, other, better in kept):
            kept.append((score, kind, box))
    return kept


def test_the_graph_finds_what_numpy_finds(answered):
    (classes, scores, boxes), _, raw = answered
    counts = []
    for picture in range(3):
        wanted = found_by_numpy(raw, picture)
        counts.append(len(wanted))
        assert scores[picture][: len(wanted)] == pytest.approx([score for score, _, _ in wanted], abs=1e-5)
        assert list(classes[picture][: len(wanted)]) == [kind for _, kind, _ in wanted]
        assert boxes[picture][: len(wanted)] == pytest.approx(np.array([box for _, _, box in wanted]), abs=1e-5)
        for rest in (classes, scores, boxes):
            assert not rest[picture][len(wanted) :].any()
    assert counts[0] < 400, "no box was covered by a better one: the rule was not tried"


def test_a_batch_finds_what_its_pictures_do_alone(answered):
    together, alone, _ = answered
    for picture, (classes, scores, boxes) in enumerate(alone):
        assert np.array_equal(classes[0], together[0][picture])
        assert scores[0] == pytest.approx(together[1][picture], abs=1e-5)
        assert boxes[0] == pytest.approx(together[2][picture], abs=1e-5)


def test_outputs_are_400_rows_of_known_types():
    network = ssd(Ssd(detections=True), 21)
    assert [
        (v.name, v.type.tensor_type.elem_type, [d.dim_value or d.dim_param for d in v.type.tensor_type.shape.dim])
        for v in network.outputs
    ] == [
        ("detections/classes:0", 7, ["N", 400]),
        ("detections/scores:0", 1, ["N", 400]),
        ("detections/boxes:0", 1, ["N", 400, 4]),
    ]

"""From an SSD's raw outputs to what it found, in standard ONNX operators: the original's clients did this in numpy.

Softmax over the classes; of each anchor the best class that is not background, if it is more than 0.5 probable (no two
can be); the 400 most probable; boxes from anchors, cut to the picture; of boxes of one class that overlap by more than
0.45 the more probable. A batch answers as its pictures do alone: each picture has 400 rows, those found first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelserve.recipes.network import ONNX_FLOAT, ONNX_INT64, Network

ROWS = 400
THRESHOLD, OVERLAP = 0.5, 0.45
_PRIOR_SCALING = (0.1, 0.1, 0.2, 0.2)
_PICTURE = 300.0
_CENTRE = 0.5


@dataclass(frozen=True, slots=True)
class Anchors:
    """The boxes that one map begins with at each of its places.

    sizes: pixels of the smaller square; with the next map's size, of the larger one. step: pixels between places.
    ratios: width to height of further boxes as large as the smaller square.
    """

    sizes: tuple[int, int]
    step: int
    ratios: tuple[float, ...]

    @property
    def count(self) -> int:
        return 2 + len(self.ratios)

    def boxes(self, height: int, width: int) -> NDArray[np.float32]:
        """float32[height * width * count, 4]: centre x, centre y, width, height as parts of the picture."""
        small, large = self.sizes
        sides = [(small, small), (math.sqrt(small * large), math.sqrt(small * large))]
        sides += [(small * math.sqrt(ratio), small / math.sqrt(ratio)) for ratio in self.ratios]
        y, x = np.mgrid[0:height, 0:width]
        boxes = np.empty((height, width, self.count, 4))
        boxes[..., 0] = (x[..., None] + _CENTRE) * self.step / _PICTURE
        boxes[..., 1] = (y[..., None] + _CENTRE) * self.step / _PICTURE
        boxes[..., 2:] = np.array(sides) / _PICTURE
        return boxes.reshape(-1, 4).astype(np.float32)


def detections(
    network: Network,
    anchors: Sequence[Anchors],
    shapes: Sequence[tuple[int, int]],
    logits: Sequence[str],
    boxes: Sequence[str],
    classes: int,
) -> None:
    """Add the operators and three outputs, of ROWS rows for each picture, the most probable first:

    detections/classes:0 int64 (0 where there is nothing), detections/scores:0 float32, detections/boxes:0 float32[4]:
    ymin, xmin, ymax, xmax as parts of the picture.
    """
    tail = _Tail(network)
    scores, kinds = tail.best(tail.joined("logits", logits, classes), classes)
    rows = tail.integers("rows", ROWS)
    top, order = tail.two("TopK", "most_probable", [scores, rows], axis=1)
    kinds = tail.op("GatherElements", "classes_of_those", [kinds, order], axis=1)
    reference = np.concatenate([a.boxes(*shape) for a, shape in zip(anchors, shapes, strict=True)])
    found = tail.decoded(tail.joined("boxes", boxes, 4), tail.floats("anchors", reference), order)
    kept = tail.op("Mul", "kept", [top, tail.survivors(found, top, kinds, classes)])
    final, order = tail.two("TopK", "kept_first", [kept, rows], axis=1)
    some = tail.op("Greater", "is_one", [final, tail.number("nothing", 0.0)])
    kinds = tail.op("GatherElements", "classes_kept", [kinds, order], axis=1)
    kinds = tail.op("Add", "classes_from_one", [kinds, tail.integers("one", 1)])
    found = tail.rows("boxes_kept", found, order)
    flags = tail.op("Cast", "is_one_float", [some], to=ONNX_FLOAT)
    column = tail.op("Unsqueeze", "is_one_column", [flags, tail.integers("last", -1)])
    whole = tail.op("Cast", "is_one_whole", [some], to=ONNX_INT64)
    network.output(tail.op("Mul", "classes", [kinds, whole]), (ROWS,), ONNX_INT64)
    network.output(tail.op("Identity", "scores", [final]), (ROWS,))
    network.output(tail.op("Mul", "boxes", [found, column]), (ROWS, 4))


class _Tail:
    """Operators under detections/."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def op(self, kind: str, name: str, inputs: Sequence[str], **attributes: int | float | Sequence[int]) -> str:
        return self._network.op(kind, f"detections/{name}", inputs, **attributes)

    def two(self, kind: str, name: str, inputs: Sequence[str], **attributes: int | float) -> tuple[str, str]:
        names = (f"detections/{name}:0", f"detections/{name}:1")
        first, second = self._network.ops(kind, f"detections/{name}", inputs, names, **attributes)
        return first, second

    def integers(self, name: str, *values: int) -> str:
        return self._network.integers(f"detections/{name}", values)

    def floats(self, name: str, values: NDArray[np.float32]) -> str:
        return self._network.floats(f"detections/{name}", values)

    def number(self, name: str, value: float) -> str:
        return self.floats(name, np.array(value, np.float32))

    def joined(self, name: str, maps: Sequence[str], numbers: int) -> str:
        """float32[N, anchors of all maps, numbers]."""
        shape = self.integers(f"{name}_shape", 0, -1, numbers)
        flat = [self.op("Reshape", f"{name}_{index}", [tensor, shape]) for index, tensor in enumerate(maps)]
        return self.op("Concat", f"{name}_all", flat, axis=1)

    def best(self, logits: str, classes: int) -> tuple[str, str]:
        """[N, anchors]: the best class's probability, 0 unless above the threshold; that class, counted from 0."""
        every = self.op("Softmax", "probabilities", [logits], axis=2)
        bounds = [self.integers(key, value) for key, value in (("from", 1), ("to", classes), ("axis", 2))]
        objects = self.op("Slice", "probabilities_of_objects", [every, *bounds])
        best = self.op("ReduceMax", "best_probability", [objects], axes=[2], keepdims=0)
        above = self.op("Greater", "is_probable", [best, self.number("threshold", THRESHOLD)])
        scores = self.op("Where", "probable", [above, best, self.number("improbable", 0.0)])
        return scores, self.op("ArgMax", "best_class", [objects], axis=2, keepdims=0)

    def rows(self, name: str, values: str, order: str) -> str:
        """values [N, n, 4] at order [N, k]: [N, k, 4]."""
        column = self.op("Unsqueeze", f"{name}_order", [order, self.integers(f"{name}_last", -1)])
        return self.op("GatherND", name, [values, column], batch_dims=1)

    def decoded(self, boxes: str, anchors: str, order: str) -> str:
        """[N, ROWS, 4]: the boxes of those anchors in the picture, ymin, xmin, ymax, xmax."""
        halves = self.integers("halves", 2, 2)
        offsets = self.op(
            "Mul",
            "scaled",
            [self.rows("boxes_of_those", boxes, order), self.floats("prior_scaling", np.array(_PRIOR_SCALING, "f4"))],
        )
        moves, growths = self.two("Split", "offsets", [offsets, halves], axis=2)
        places = self.op("Gather", "anchors_of_those", [anchors, order], axis=0)
        centres, sizes = self.two("Split", "places", [places, halves], axis=2)
        centres = self.op("Add", "centres", [self.op("Mul", "moves", [moves, sizes]), centres])
        sizes = self.op("Mul", "sizes", [self.op("Exp", "growths", [growths]), sizes])
        half = self.op("Mul", "half_sizes", [sizes, self.number("half", 0.5)])
        corners = [self.op("Sub", "lower", [centres, half]), self.op("Add", "upper", [centres, half])]
        by_x = self.op("Concat", "corners", corners, axis=2)
        by_y = self.op("Gather", "corners_y_first", [by_x, self.integers("y_first", 1, 0, 3, 2)], axis=2)
        return self.op("Clip", "in_the_picture", [by_y, self.number("edge", 0.0), self.number("far_edge", 1.0)])

    def survivors(self, boxes: str, scores: str, kinds: str, classes: int) -> str:
        """[N, ROWS]: 1 for a row that no better one of its class covers, else 0."""
        depth, values = self.integers("kinds", classes - 1), self.floats("off_on", np.array([0, 1], "f4"))
        marks = self.op("OneHot", "marks", [kinds, depth, values], axis=1)
        row = self.op("Unsqueeze", "scores_row", [scores, self.integers("second", 1)])
        by_class = self.op("Mul", "scores_by_class", [marks, row])
        limits = [self.number("overlap", OVERLAP), self.number("at_least", THRESHOLD)]
        chosen = self.op("NonMaxSuppression", "chosen", [boxes, by_class, self.integers("most", ROWS), *limits])
        places = self.op("Gather", "chosen_rows", [chosen, self.integers("picture_and_row", 0, 2)], axis=1)
        count = self.op("Slice", "chosen_count", [self.op("Shape", "chosen_shape", [chosen]), *self._first()])
        ones = self.op("Expand", "ones", [self.number("on", 1.0), count])
        zeros = self.op("Expand", "zeros", [self.number("off", 0.0), self.op("Shape", "scores_shape", [scores])])
        return self.op("ScatterND", "survivors", [zeros, places, ones])

    def _first(self) -> tuple[str, str]:
        return self.integers("begin", 0), self.integers("begin_end", 1)

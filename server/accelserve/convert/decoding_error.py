"""How far the server's decoder is from a host part that it could stand in for: of pixels, and of the model's outputs.

TensorFlow is here and not where the model is served, so this is measured once, and what is found goes with the model.
The pictures are generated: smooth ones, and ones with the spectrum and the edges of a photograph.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from accelserve.backends.base import DecodedFor, Session
from accelserve.backends.saved_model_onnx.cut_model import Pictures
from accelserve.codecs.images import decode_picture, picture_format
from accelserve.convert.compare import difference, run
from accelserve.convert.parts import PartGraph
from accelserve.errors import Kind, ScoringError
from accelserve.tensors import Signature, Tensor

v1 = tf.compat.v1
# Of the model's own size, other aspects too: far above (where averaging and picking pixels part), above, equal, below.
_FACTORS = ((5.3, 4.1), (1.5, 1.25), (1.0, 1.0), (0.6, 0.75))
_QUALITY = 90


@dataclass(frozen=True, slots=True)
class PictureError:
    """Of one picture: as `cut_model.Pictures` has them of all."""

    picture: str
    pixel_error: float
    output_error: float


def measure(
    reference: Session, candidate: Session, signature: Signature, host: PartGraph, found: Pictures, own: Sequence[Path]
) -> tuple[Pictures, list[PictureError]]:
    """own: files that are measured besides, where they are pictures.

    Raises ScoringError where the two cannot be compared.
    """
    if not isinstance(candidate, DecodedFor):
        raise ScoringError(Kind.UNSUPPORTED, "the converted model's session does not take decoded pictures")
    taken = candidate.take_decoded(signature.name)
    pictures = {**dict(_generated(found)), **dict(_files(own))}
    texts: Tensor = np.empty(len(pictures), object)
    texts[:] = list(pictures.values())
    (ours_spec,), (key,) = taken.signature.inputs.values(), signature.inputs
    steps = taken.preprocessing
    ours = np.stack([decode_picture(data, steps, dtype=ours_spec.dtype) for data in pictures.values()])
    theirs = _ran(host, texts)
    scale = np.abs(np.asarray(steps.scale)) if ours_spec.dtype.name != "uint8" else 1.0
    apart = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)) / scale
    wanted, got = run(reference, signature, {key: texts}), run(candidate, taken.signature, {key: ours})
    told = [
        PictureError(name, float(apart[row].max()), _output_error(got, wanted, row if signature.batched else None))
        for row, name in enumerate(pictures)
    ]
    worst = max(each.pixel_error for each in told), max(each.output_error for each in told)
    return replace(found, pixel_error=worst[0], output_error=worst[1]), told


def _output_error(got: Any, wanted: Any, row: int | None) -> float:
    """The largest of all outputs; 1 where an integer or a string differs, or what is no number."""
    rows = slice(None) if row is None else slice(row, row + 1)
    errors = [difference(got[key][rows], wanted[key][rows]) for key in wanted]
    return max(error if math.isfinite(error) else 1.0 for error in errors)


def _ran(host: PartGraph, texts: Tensor) -> Tensor:
    with v1.Session(graph=tf.Graph()) as session:
        with session.graph.as_default():
            tf.graph_util.import_graph_def(host.definition, name="")
        (feed,), (fetch,) = host.feeds, host.fetches
        made: Tensor = session.run(fetch, {feed: texts})
    return made


def _files(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        data = path.read_bytes()
        if picture_format(data):
            yield path.name, data


def _generated(found: Pictures) -> Iterator[tuple[str, bytes]]:
    """Name -> JPEG."""
    random = np.random.default_rng(20190501)
    for tall, wide in _FACTORS:
        size = max(8, round(found.size[0] * tall)), max(8, round(found.size[1] * wide))
        for name, pixels in (("smooth", _smooth(size)), ("photograph", _photograph(size, random))):
            yield f"{name} {size[0]}x{size[1]}", _encoded(pixels)


def _smooth(size: tuple[int, int]) -> NDArray[np.uint8]:
    y, x = (np.linspace(0, 1, side) for side in size)
    planes = [np.add.outer(np.sin(2 * y + k), np.cos(3 * x + k)) for k in range(3)]
    return _bytes(np.stack(planes, axis=2))


def _photograph(size: tuple[int, int], random: np.random.Generator) -> NDArray[np.uint8]:
    """Noise whose amplitude falls with the frequency, as that of photographs does, and a bright box with hard edges."""
    frequency = np.hypot.outer(np.fft.fftfreq(size[0]), np.fft.rfftfreq(size[1]))
    frequency[0, 0] = np.inf
    grey = np.fft.irfft2(np.fft.rfft2(random.standard_normal(size)) / frequency, size)
    tinted = grey[..., None] * (1.0, 0.9, 0.7) + random.standard_normal(3)
    tinted[size[0] // 4 : size[0] // 2, size[1] // 3 : size[1] // 2] += 2 * grey.std()
    return _bytes(tinted)


def _bytes(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    low, high = values.min(), values.max()
    scaled: NDArray[np.uint8] = ((values - low) * (255 / (high - low))).astype(np.uint8)
    return scaled


def _encoded(pixels: NDArray[np.uint8]) -> bytes:
    with v1.Session(graph=tf.Graph()) as session, session.graph.as_default():
        data: bytes = session.run(tf.io.encode_jpeg(pixels, quality=_QUALITY))
    return data

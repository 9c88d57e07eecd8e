"""The device's normalisation is the host's, bit for bit."""

import io

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from accelserve.backends.onnx_runtime.pixel_graph import NORMALISED, pixel_graph, why_not_pixels
from accelserve.codecs.images import decode_picture
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, TensorSpec

SIZE = (5, 7)
IMAGENET = {"mean": (123.68, 116.779, 103.939), "scale": (1 / 58.4, 1 / 57.1, 1 / 57.4)}


def png() -> bytes:
    pixels = np.random.default_rng(7).integers(0, 256, (*SIZE, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def spec_of(preprocessing: Preprocessing, dtype: str) -> TensorSpec:
    channels = preprocessing.channels
    row = (*SIZE, channels) if preprocessing.layout == "NHWC" else (channels, *SIZE)
    return TensorSpec("image", BY_NAME[dtype], (-1, *row), "image")


def on_device(preprocessing: Preprocessing, spec: TensorSpec, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(pixel_graph(preprocessing, spec), providers=["CPUExecutionProvider"])
    return session.run([spec.name + NORMALISED], {spec.name: pixels})[0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("channel_order", ["RGB", "BGR", "GRAY"])
@pytest.mark.parametrize(
    "numbers", [{}, {"scale": (1 / 255,)}, {"mean": (127.5,), "scale": (1 / 127.5,)}, IMAGENET], ids=str
)
def test_pixels_become_what_the_host_makes_of_them_bit_for_bit(dtype, layout, channel_order, numbers):
    if channel_order == "GRAY":
        numbers = {name: values[:1] for name, values in numbers.items()}
    preprocessing = Preprocessing(SIZE, channel_order=channel_order, layout=layout, **numbers)
    spec = spec_of(preprocessing, dtype)
    as_pixels = Preprocessing(SIZE, channel_order=channel_order)
    pixels = decode_picture(png(), as_pixels, dtype=BY_NAME["uint8"])[None].repeat(3, axis=0)

    made = on_device(preprocessing, spec, pixels)

    wanted = decode_picture(png(), preprocessing, dtype=spec.dtype)
    assert made.dtype == wanted.dtype
    for row in made:
        np.testing.assert_array_equal(row, wanted)


@pytest.mark.parametrize(
    ("resize", "dtype", "reason"),
    [
        ("stretch", "float32", ""),
        ("fit-crop", "float16", ""),
        ("letterbox", "float32", "letterbox"),
        ("stretch", "uint8", 'input "image" takes bytes as they are'),
    ],
)
def test_letterbox_and_byte_inputs_stay_with_the_host(resize, dtype, reason):
    preprocessing = Preprocessing(SIZE, resize=resize)
    why = why_not_pixels(preprocessing, spec_of(preprocessing, dtype))
    assert bool(why) is bool(reason)
    assert reason in why

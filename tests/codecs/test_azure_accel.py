"""`resize = "azure-accel"`: the rule of azureml-accel-models' preprocess_array, written as a TensorFlow graph."""

import io

import numpy as np
import pytest
from PIL import Image

from accelserve.codecs.images import decode_picture
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME
from model_builders import import_tensorflow

FLOAT32 = BY_NAME["float32"]
MEAN = (123.68, 116.779, 103.939)
TOLERANCE = 1e-4
NOISE = np.random.default_rng(1)


def png(height, width, mode="RGB") -> bytes:
    shape = (height, width) if mode in ("L", "1", "I;16") else (height, width, len(mode))
    image = Image.fromarray(NOISE.integers(0, 256, shape, np.uint8), {"P": "L"}.get(mode, mode))
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def ours(data, size=(224, 224), resize="azure-accel", order="RGB", factor=1.0, **more) -> np.ndarray:
    mean = MEAN if order == "RGB" else MEAN[::-1]
    steps = Preprocessing(size, resize=resize, channel_order=order, mean=mean, scale=(factor,), **more)
    return decode_picture(data, steps, dtype=FLOAT32)


@pytest.fixture(scope="module")
def original():
    """(bytes, size, order, scaling factor, preserve aspect ratio) -> what the rule gives, by TensorFlow."""
    tf = import_tensorflow()
    v1 = tf.compat.v1

    def aspect(pixels, size):
        height, width = (tf.cast(side, tf.float32) for side in tf.unstack(tf.shape(pixels)[:2]))
        factor = 256.0 / tf.minimum(height, width)
        sides = [tf.cast(height * factor, tf.int32), tf.cast(width * factor, tf.int32)]
        resized = v1.image.resize_bilinear(pixels[None], tf.stack(sides), align_corners=False)[0]
        top, left = ((side - wanted) // 2 for side, wanted in zip(sides, size, strict=True))
        return resized[top : top + size[0], left : left + size[1]]

    def run(data, size=(224, 224), order="RGB", factor=1.0, preserve=True):
        with v1.Graph().as_default():
            pixels = tf.cast(tf.io.decode_png(data, channels=3), tf.float32)
            stretched = v1.image.resize_bilinear(pixels[None], size, align_corners=False)[0]
            made = (aspect(pixels, size) if preserve else stretched) - tf.constant(MEAN)
            made = (made if order == "RGB" else made[..., ::-1]) * factor
            with v1.Session() as session:
                return session.run(made)

    return run


SIZES = [(256, 256), (224, 224), (300, 400), (400, 300), (375, 500), (225, 227), (1, 1), (2, 3), (61, 83), (513, 511)]
EXTREME = [(1, 300), (300, 1), (17, 2000), (2000, 16), (1000, 1500), (700, 257)]


@pytest.mark.tensorflow
@pytest.mark.parametrize("size", SIZES + EXTREME)
def test_a_picture_of_any_size_is_what_tensorflow_makes_of_it(original, size):
    data = png(*size)
    made = ours(data)
    assert (made.shape, made.dtype) == ((224, 224, 3), np.float32)
    assert np.abs(made - original(data)).max() <= TOLERANCE


@pytest.mark.tensorflow
@pytest.mark.parametrize("mode", ["L", "RGBA", "LA"])
def test_grey_is_expanded_and_alpha_dropped(original, mode):
    data = png(280, 333, mode)
    assert np.abs(ours(data) - original(data)).max() <= TOLERANCE


@pytest.mark.tensorflow
@pytest.mark.parametrize(("order", "factor"), [("RGB", 0.017), ("BGR", 1.0), ("BGR", 0.5)])
def test_channels_are_ordered_after_the_mean_and_scaled_last(original, order, factor):
    data = png(310, 290)
    made = ours(data, order=order, factor=factor)
    assert np.abs(made - original(data, order=order, factor=factor)).max() <= TOLERANCE
    planes = ours(data, order=order, factor=factor, layout="NCHW")
    assert np.array_equal(planes, made.transpose(2, 0, 1))


@pytest.mark.tensorflow
@pytest.mark.parametrize("size", [(300, 300), (500, 375), (37, 900), (1, 1), (1201, 640)])
def test_without_its_aspect_ratio_a_picture_is_stretched_on_the_same_grid(original, size):
    """What SSD-VGG takes."""
    data = png(*size)
    made = ours(data, (300, 300), "stretch", resampling="legacy")
    assert np.abs(made - original(data, (300, 300), preserve=False)).max() <= TOLERANCE


@pytest.mark.tensorflow
def test_a_jpeg_differs_by_no_more_than_the_two_builds_of_libjpeg(original):
    y, x = np.mgrid[0:300, 0:400]
    smooth = np.stack([x % 256, y % 256, (x + y) % 256], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(smooth).save(file, "JPEG", quality=95)
    assert np.abs(ours(file.getvalue()) - original(file.getvalue())).max() <= 2


def test_the_originals_bugs_are_not_kept():
    """There the width was taken from the height, and sides above 256 were clamped."""
    assert ours(png(400, 500), (200, 224)).shape == (200, 224, 3)
    assert ours(png(400, 500), (300, 300)).shape == (300, 300, 3)


def test_a_sliver_costs_what_it_keeps_and_not_what_it_would_grow_to():
    """1 x 60,000 would become 256 x 15,360,000 before the crop."""
    assert ours(png(1, 60_000)).shape == (224, 224, 3)


def test_bytes_that_are_no_picture_are_refused():
    for data, kind in ((b"", Kind.UNDECODABLE), (b"text", Kind.UNSUPPORTED_MEDIA), (png(9, 9)[:60], Kind.UNDECODABLE)):
        with pytest.raises(ScoringError) as error:
            ours(data)
        assert error.value.kind is kind

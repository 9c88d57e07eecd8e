"""Bilinear resizing on TensorFlow's older grids, against the rule written out slowly in float32."""

import numpy as np
import pytest

from accelserve.codecs.bilinear import Window, resample

NOISE = np.random.default_rng(0)


def noise(height, width, channels=3) -> np.ndarray:
    return NOISE.integers(0, 256, (height, width, channels), np.uint8)


def slow_axis(image, here, corners, axis) -> np.ndarray:
    there = image.shape[axis]
    step = (
        np.float32(there - 1) / np.float32(here - 1) if corners and here > 1 else np.float32(there) / np.float32(here)
    )
    lines = []
    for index in range(here):
        place = np.float32(index) * step
        low, high = int(np.floor(place)), min(int(np.ceil(place)), there - 1)
        left, right = image.take(min(low, there - 1), axis), image.take(high, axis)
        lines.append(left + (right - left) * np.float32(place - low))
    return np.stack(lines, axis)


def slow(image, size, corners=False) -> np.ndarray:
    """TensorFlow's resize_bilinear: across first, then down."""
    return slow_axis(slow_axis(image.astype(np.float32), size[1], corners, 1), size[0], corners, 0)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 9), (50, 80), (51, 79), (300, 200), (25, 160)])
def test_every_value_is_that_of_the_rule_however_far_it_shrinks_or_grows(size, corners):
    for picture in (noise(50, 80), noise(1, 1), noise(3, 700, 1)):
        made = resample(picture, Window(size, (0, 0), size), corners=corners)
        assert made.dtype == np.float32
        assert np.abs(made - slow(picture, size, corners)).max() < 1e-4


@pytest.mark.parametrize("shape", [(300, 400), (100, 80), (97, 1000), (1203, 911)])
def test_a_window_is_cut_out_of_what_the_whole_would_be(shape):
    picture, resized = noise(*shape), (256, 341)
    made = resample(picture, Window(resized, (16, 58), (224, 224)))
    assert np.abs(made - slow(picture, resized)[16:240, 58:282]).max() < 1e-4


def test_weights_are_exact_far_into_a_large_picture():
    """In 30,000 columns the place of a pixel has few bits left for its fraction, and all of them count."""
    picture, resized = noise(4, 30_000, 1), (4, 7_001)
    made = resample(picture, Window(resized, (0, 6_900), (4, 101)))
    assert np.abs(made - slow(picture, resized)[:, 6_900:]).max() < 1e-4


def test_the_picture_is_left_as_it_was():
    picture = noise(8, 8)
    before = picture.copy()
    made = resample(picture, Window((8, 8), (0, 0), (8, 8)))
    assert np.array_equal(made, before)
    made[:] = 0
    assert np.array_equal(picture, before)

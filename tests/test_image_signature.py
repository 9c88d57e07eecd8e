"""Which inputs are pictures, and what is guessed for them."""

import pytest

from accelserve.errors import Kind, ScoringError
from accelserve.image_signature import check_fits, guess_preprocessing
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME, TensorSpec


def spec(dtype: str, shape: tuple[int, ...] | None) -> TensorSpec:
    return TensorSpec("images", BY_NAME[dtype], shape, "images:0")


@pytest.mark.parametrize(
    ("shape", "size", "layout", "order"),
    [
        ((-1, 299, 320, 3), (299, 320), "NHWC", "RGB"),
        ((-1, 3, 299, 320), (299, 320), "NCHW", "RGB"),
        ((1, 28, 28, 1), (28, 28), "NHWC", "GRAY"),
        ((-1, 1, 28, 28), (28, 28), "NCHW", "GRAY"),
        ((-1, -1, -1, 3), (224, 224), "NHWC", "RGB"),
        ((-1, 3, -1, 640), (224, 640), "NCHW", "RGB"),
        ((-1, 3, 224, 3), (3, 224), "NHWC", "RGB"),
    ],
)
def test_size_layout_and_channels_are_read_from_the_signature(shape, size, layout, order):
    prep = guess_preprocessing(spec("uint8", shape))
    assert prep == Preprocessing(size, channel_order=order, layout=layout, guessed=True)


def test_a_guess_stretches_and_leaves_exif_alone():
    prep = guess_preprocessing(spec("uint8", (-1, 224, 224, 3)))
    assert prep is not None
    assert (prep.resize, prep.exif, prep.guessed) == ("stretch", False, True)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_float_inputs_get_x_over_255(dtype):
    prep = guess_preprocessing(spec(dtype, (-1, 224, 224, 3)))
    assert prep is not None
    assert (prep.mean, prep.scale) == ((0.0,), (1 / 255,))


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("float32", None),
        ("float32", (-1, 784)),
        ("float32", (-1, 224, 224, 4)),
        ("float32", (-1, -1, -1, -1)),
        ("float32", (-1, 0, 224, 3)),
        ("float32", (-1, 8, 224, 224, 3)),
        ("int32", (-1, 224, 224, 3)),
        ("string", (-1,)),
    ],
)
def test_other_inputs_are_no_pictures(dtype, shape):
    assert guess_preprocessing(spec(dtype, shape)) is None


@pytest.mark.parametrize(
    ("prep", "dtype", "shape"),
    [
        (Preprocessing((224, 224)), "uint8", (-1, 224, 224, 3)),
        (Preprocessing((224, 224)), "float16", (8, -1, -1, 3)),
        (Preprocessing((20, 30), layout="NCHW", channel_order="GRAY"), "float32", (-1, 1, 20, 30)),
        (Preprocessing((20, 30)), "float32", (-1, -1, -1, -1)),
        (Preprocessing((20, 30)), "float32", None),
    ],
)
def test_a_preprocessing_that_agrees_is_let_through(prep, dtype, shape):
    check_fits(prep, spec(dtype, shape))


@pytest.mark.parametrize(
    ("prep", "dtype", "shape"),
    [
        (Preprocessing((224, 225)), "uint8", (-1, 224, 224, 3)),
        (Preprocessing((225, 224)), "uint8", (-1, 224, 224, 3)),
        (Preprocessing((224, 224), layout="NCHW"), "uint8", (-1, 224, 224, 3)),
        (Preprocessing((224, 224), channel_order="GRAY"), "uint8", (-1, 224, 224, 3)),
        (Preprocessing((224, 224)), "uint8", (224, 224, 3)),
        (Preprocessing((224, 224)), "int64", (-1, 224, 224, 3)),
        (Preprocessing((224, 224)), "string", None),
    ],
)
def test_a_preprocessing_that_contradicts_the_signature_is_refused(prep, dtype, shape):
    with pytest.raises(ScoringError) as caught:
        check_fits(prep, spec(dtype, shape))
    assert caught.value.kind is Kind.INVALID


def test_the_refusal_says_what_is_wanted_and_what_is_made():
    with pytest.raises(ScoringError) as caught:
        check_fits(Preprocessing((10, 20), layout="NCHW"), spec("uint8", (-1, 224, 224, 3)))
    want = '"images": want uint8[-1,224,224,3], but preprocessing makes uint8[-1,3,10,20] (NCHW, RGB)'
    assert caught.value.message == want

"""Which host parts only decode pictures: graphs as people write them, with the loops of both TensorFlows."""

from functools import partial

import numpy as np
import pytest

from model_builders import import_tensorflow

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("default")]

SIDES = [16, 12]
IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def tf():
    return import_tensorflow()


def host(tf, decode, after=lambda pixels: pixels, loops="functions", dtype="float32", inputs=1):
    """string [-1] -> what `after` makes of the rows that `decode` gives in a map_fn, as a host part."""
    from accelserve.convert.parts import PartGraph

    v1 = tf.compat.v1
    (v1.enable_control_flow_v2 if loops == "functions" else v1.disable_control_flow_v2)()
    try:
        with v1.Graph().as_default() as graph:
            images = v1.placeholder(tf.string, [None], name="images")
            cut = after(tf.map_fn(partial(decode, tf), images, dtype=tf.as_dtype(dtype)))
            feeds = {"images:0": "images:0", "other:0": "other:0"}
            return PartGraph(graph.as_graph_def(), dict(list(feeds.items())[:inputs]), {cut.name: cut.name})
    finally:
        v1.enable_control_flow_v2()


def decoded(tf, data):
    return tf.image.decode_jpeg(data, channels=3)


def divided(tf, data):
    return tf.image.resize(tf.cast(decoded(tf, data), tf.float32) / 255.0, SIDES)


def antialiased(tf, data):
    pixels = tf.io.decode_image(data, channels=3, expand_animations=False)
    return tf.image.resize(pixels, SIDES, antialias=True) / 127.5 - 1.0


def legacy(tf, data):
    return tf.compat.v1.image.resize_bilinear(decoded(tf, data)[None], SIDES)[0]


def aligned(tf, data):
    pixels = tf.expand_dims(tf.image.decode_png(data, channels=1), 0)
    return tf.squeeze(tf.compat.v1.image.resize_bilinear(pixels, SIDES, align_corners=True), [0])


def converted(tf, data):
    pixels = tf.image.resize(tf.image.convert_image_dtype(decoded(tf, data), tf.float32), SIDES)
    return (pixels - tf.constant(IMAGENET[0])) / tf.constant(IMAGENET[1])


def of_floats(tf, data):
    pixels = tf.io.decode_image(data, channels=3, dtype=tf.float32, expand_animations=False)
    return tf.ensure_shape(tf.image.resize(pixels, SIDES), [*SIDES, 3])


def turned_over(tf, data):
    return 1.0 - tf.image.resize(decoded(tf, data), SIDES) * (2 / 255)


def averaged(tf, data):
    return tf.round(tf.compat.v1.image.resize_area(decoded(tf, data)[None], SIDES)[0])


@pytest.mark.parametrize("loops", ["functions", "frames"])
@pytest.mark.parametrize(
    ("decode", "channels", "mean", "scale", "grid"),
    [
        (divided, 3, [0], [1 / 255], "half_pixel"),
        (antialiased, 3, [127.5], [1 / 127.5], "half_pixel_antialias"),
        (legacy, 3, [0], [1], "legacy"),
        (aligned, 1, [0], [1], "align_corners"),
        (converted, 3, np.multiply(IMAGENET[0], 255), 1 / np.multiply(IMAGENET[1], 255), "half_pixel"),
        (of_floats, 3, [0], [1 / 255], "half_pixel"),
        (turned_over, 3, [127.5], [-2 / 255], "half_pixel"),
        (averaged, 3, [0], [1], "area"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_usual_pipelines_are_known(tf, loops, decode, channels, mean, scale, grid):
    from accelserve.convert.decoding import recognise

    part = host(tf, decode, loops=loops)
    before = part.definition.SerializeToString(deterministic=True)
    found, reason = recognise(part)
    assert found is not None, reason
    assert part.definition.SerializeToString(deterministic=True) == before
    assert (found.size, found.channels, found.dtype, found.grid) == ((16, 12), channels, "float32", grid)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(found.scale, scale, rtol=1e-6)
    assert reason == ""


def test_the_transform_is_tensorflows_fast_one_unless_the_graph_says_accurate(tf):
    from accelserve.convert.decoding import recognise

    def accurately(tf, data):
        return tf.image.resize(tf.image.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE"), SIDES)

    assert [recognise(host(tf, decode))[0].fast_dct for decode in (divided, accurately)] == [True, False]


def test_arithmetic_on_all_rows_after_the_loop_counts_too(tf):
    from accelserve.convert.decoding import recognise

    found, _ = recognise(host(tf, divided, lambda rows: tf.reshape((rows - [0.1, 0.2, 0.3]) * 2.0, [-1, *SIDES, 3])))
    np.testing.assert_allclose(found.mean, [25.5, 51.0, 76.5], rtol=1e-6)
    np.testing.assert_allclose(found.scale, [2 / 255], rtol=1e-6)


def test_pixels_may_be_bytes_at_the_cut(tf):
    from accelserve.convert.decoding import recognise

    found, _ = recognise(host(tf, lambda tf, data: tf.cast(legacy(tf, data), tf.uint8), dtype="uint8"))
    assert (found.dtype, found.mean, found.scale) == ("uint8", (0.0,), (1.0,))


def cropped(tf, data):
    return tf.image.resize(tf.image.central_crop(decoded(tf, data), 0.8), SIDES)


def cropped_after(tf, data):
    return tf.image.resize(decoded(tf, data), SIDES)[2:10, 2:10]


def flipped(tf, data):
    return tf.image.resize(tf.image.random_flip_left_right(decoded(tf, data)), SIDES)


def mirrored(tf, data):
    return tf.image.resize(decoded(tf, data), SIDES)[:, ::-1]


def reordered(tf, data):
    return tf.image.resize(decoded(tf, data), SIDES)[..., ::-1]


def bicubic(tf, data):
    return tf.image.resize(decoded(tf, data), SIDES, method="bicubic")


def nearest(tf, data):
    return tf.cast(tf.image.resize(decoded(tf, data), SIDES, method="nearest"), tf.float32)


def keeping_its_aspect(tf, data):
    return tf.image.resize(decoded(tf, data), SIDES, preserve_aspect_ratio=True)


def padded(tf, data):
    return tf.image.resize_with_pad(decoded(tf, data), *SIDES)


def standardised(tf, data):
    return tf.image.per_image_standardization(tf.image.resize(decoded(tf, data), SIDES))


def as_it_is(tf, data):
    return tf.cast(decoded(tf, data), tf.float32)


def any_channels(tf, data):
    return tf.image.resize(tf.image.decode_jpeg(data), SIDES)


def at_a_fraction(tf, data):
    return tf.image.resize(tf.image.decode_jpeg(data, channels=3, ratio=2), SIDES)


def of_sixteen_bits(tf, data):
    return tf.image.resize(tf.image.decode_png(data, channels=3, dtype=tf.uint16), SIDES)


def from_base64(tf, data):
    return divided(tf, tf.io.decode_base64(data))


def twice(tf, data):
    return tf.image.resize(tf.image.resize(decoded(tf, data), [40, 40]), SIDES)


def per_row(tf, data):
    return tf.image.resize(decoded(tf, data), SIDES) - np.arange(12, dtype=np.float32)[:, None]


def per_pixel(tf, data):
    return tf.image.resize(decoded(tf, data), SIDES) * np.ones((12, 3), np.float32)


def by_itself(tf, data):
    return 1.0 / tf.image.resize(decoded(tf, data), SIDES)


def forgotten(tf, data):
    return tf.image.resize(decoded(tf, data), SIDES) * 0.0


@pytest.mark.parametrize("loops", ["functions", "frames"])
@pytest.mark.parametrize(
    "decode",
    [
        *(cropped, cropped_after, flipped, mirrored, reordered, bicubic, nearest, keeping_its_aspect, padded),
        *(standardised, as_it_is, any_channels, at_a_fraction, of_sixteen_bits, from_base64, twice, per_row, per_pixel),
        *(by_itself, forgotten),
    ],
)
def test_what_is_not_known_is_left_to_the_model(tf, loops, decode):
    from accelserve.convert.decoding import recognise

    found, reason = recognise(host(tf, decode, loops=loops))
    assert found is None
    assert reason


def test_rows_in_another_order_are_not_known(tf):
    from accelserve.convert.decoding import recognise

    assert recognise(host(tf, divided, lambda rows: rows[::-1]))[0] is None
    assert recognise(host(tf, divided, lambda rows: tf.reduce_mean(rows, 0)))[0] is None


def test_a_loop_over_all_rows_but_one_is_not_known(tf):
    from accelserve.convert.decoding import recognise
    from accelserve.convert.parts import PartGraph

    v1 = tf.compat.v1
    for toggle in (v1.enable_control_flow_v2, v1.disable_control_flow_v2):
        toggle()
        with v1.Graph().as_default() as graph:
            images = v1.placeholder(tf.string, [None], name="images")
            cut = tf.map_fn(partial(divided, tf), images[1:], dtype=tf.float32)
            found, _ = recognise(PartGraph(graph.as_graph_def(), {"images:0": "images:0"}, {cut.name: cut.name}))
        assert found is None
    v1.enable_control_flow_v2()


def test_two_inputs_are_not_known(tf):
    from accelserve.convert.decoding import recognise

    assert recognise(host(tf, divided, inputs=2)) == (None, "it is more than one tensor made of one input")


@pytest.mark.parametrize("decode", [divided, antialiased, legacy, averaged])
@pytest.mark.parametrize("stored", [(70, 53), (16, 12), (20, 30), (7, 9)], ids=str)
def test_the_servers_decoder_makes_what_the_graph_makes(tf, decode, stored):
    """Smooth pictures: only a filter of triangles is another than ours, and there only at edges."""
    from accelserve.codecs.images import decode_picture
    from accelserve.convert.decoding import recognise
    from accelserve.tensors import BY_NAME

    y, x = (np.linspace(0, 1, side) for side in stored)
    picture = (127 + 100 * np.add.outer(np.sin(4 * y), np.cos(5 * x))[..., None] / 2 * (1, 0.7, 0.4)).astype(np.uint8)
    part = host(tf, decode)
    found, _ = recognise(part)
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        with session.graph.as_default():
            tf.graph_util.import_graph_def(part.definition, name="")
        with tf.Graph().as_default(), tf.compat.v1.Session() as encoder:
            data = encoder.run(tf.io.encode_jpeg(picture, quality=80))
        (theirs,) = session.run(next(iter(part.fetches)), {"images:0": [data]})
    ours = decode_picture(data, found.preprocessing(), dtype=BY_NAME["float32"])
    assert np.abs(ours - theirs).max() <= (4.0 if decode is antialiased else 1.01) * abs(found.scale[0])

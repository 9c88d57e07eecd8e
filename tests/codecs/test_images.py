"""Pictures to tensors. Pillow makes the pictures and is the oracle; slow numpy code is the oracle of resizing."""

import io
import random
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from accelserve.codecs import images
from accelserve.codecs.images import decode_picture, picture_format
from accelserve.codecs.picture_headers import exif_orientation
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME

UINT8, FLOAT32 = BY_NAME["uint8"], BY_NAME["float32"]
JPEG_TOLERANCE = 2  # grey levels between two builds of libjpeg


def scene(height: int = 60, width: int = 80, noise: float = 8.0) -> np.ndarray:
    """Smooth colours that differ in every corner, and a little noise; uint8 [height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 255 / width, y * 255 / height, 255 - (x + y) * 255 / (height + width)], -1)
    return (smooth + np.random.default_rng(0).normal(0, noise, smooth.shape)).clip(0, 255).astype(np.uint8)


def encoded(image, form: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, form, **options)
    return file.getvalue()


def seen_by_pillow(data: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


def decoded(data, size=(60, 80), dtype=UINT8, **prep) -> np.ndarray:
    return decode_picture(data, Preprocessing(size, **prep), dtype=dtype)


def refusal(data, size=(60, 80), max_pixels=2**20, **prep) -> ScoringError:
    with pytest.raises(ScoringError) as caught:
        decode_picture(data, Preprocessing(size, **prep), max_pixels, dtype=UINT8)
    return caught.value


def apart(a, b) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, pixels: bytes, *, before: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.fixture(autouse=True)
def _no_decoder_chatter_in_the_report(capfd):
    """libpng and libjpeg write their complaints to file descriptor 2."""


# What is read


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 2}])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_each_kind_of_jpeg_has_pillows_colours(mode, options):
    data = encoded(Image.fromarray(scene()).convert(mode), "JPEG", quality=95, **options)
    assert apart(decoded(data), seen_by_pillow(data)) <= JPEG_TOLERANCE


def test_a_ycck_jpeg_has_pillows_colours():
    cmyk = bytearray(encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95))
    cmyk[cmyk.index(b"Adobe") + 11] = 2  # the marker's transform: 0 is CMYK, 2 is YCCK
    assert apart(decoded(bytes(cmyk)), seen_by_pillow(bytes(cmyk))) <= 4


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(scene()),
        Image.fromarray(scene()).convert("L"),
        Image.fromarray(scene()).convert("1"),
        Image.fromarray(scene()).quantize(200),
        Image.fromarray(scene()).quantize(3),
    ],
    ids=["rgb", "grey", "1 bit", "palette", "2 bit palette"],
)
def test_each_kind_of_png_has_its_exact_pixels(image):
    np.testing.assert_array_equal(decoded(encoded(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_dropped_and_the_colours_under_it_show(mode):
    image = Image.fromarray(scene()).convert(mode)
    image.putalpha(7)
    opaque = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decoded(encoded(image)), opaque)


def test_a_transparent_palette_shows_its_colours():
    image = Image.fromarray(scene()).quantize(32)
    np.testing.assert_array_equal(decoded(encoded(image, transparency=3)), np.asarray(image.convert("RGB")))


def test_16_bit_png_keeps_its_upper_8_bits():
    deep = (np.arange(60 * 80, dtype=np.uint32).reshape(60, 80) * 13 % 65536).astype(np.uint16)
    np.testing.assert_array_equal(decoded(encoded(deep))[..., 0], deep >> 8)


def test_an_interlaced_png_is_read():
    _, interlaced = interlaced_png()
    np.testing.assert_array_equal(decoded(interlaced), scene())


def interlaced_png() -> tuple[np.ndarray, bytes]:
    """Adam7, which Pillow only reads."""
    image, lines = scene(), []
    for row, column, down, across in (
        (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
    ):  # fmt: skip
        lines += [b"\0" + line.tobytes() for line in image[row::down, column::across]]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 60, 8, 2, 0, 0, 1))
    body = header + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")
    return image, b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_bytes_after_the_end_do_not_matter(form):
    data = encoded(scene(), form)
    np.testing.assert_array_equal(decoded(data + b"tail" * 100), decoded(data))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_memoryview_reads_like_bytes(form):
    data = encoded(scene(), form)
    np.testing.assert_array_equal(decoded(memoryview(data), exif=True), decoded(data))


@pytest.mark.parametrize(
    ("head", "found"), [(b"\xff\xd8", "jpeg"), (b"\x89PNG", "png"), (b"GIF89a", None), (b"", None)]
)
def test_a_picture_is_known_by_its_first_bytes(head, found):
    assert picture_format(head) == found


# What comes out


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("order", ["RGB", "BGR", "GRAY"])
@pytest.mark.parametrize("resize", ["stretch", "fit-crop", "letterbox"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16", "float64"])
def test_shape_type_and_memory_order_are_those_asked_for(form, layout, order, resize, dtype):
    data = encoded(scene(50, 90), form)
    got = decoded(data, (32, 40), BY_NAME[dtype], layout=layout, channel_order=order, resize=resize)
    channels = 1 if order == "GRAY" else 3
    assert got.shape == ((32, 40, channels) if layout == "NHWC" else (channels, 32, 40))
    assert got.dtype == BY_NAME[dtype].numpy
    assert got.flags.c_contiguous


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_channel_orders_and_layouts_are_the_same_pixels(form):
    data = encoded(scene(100, 100), form)
    rgb = decoded(data)
    np.testing.assert_array_equal(decoded(data, channel_order="BGR"), rgb[..., ::-1])
    np.testing.assert_array_equal(decoded(data, layout="NCHW"), rgb.transpose(2, 0, 1))
    grey = decoded(data, channel_order="GRAY")[..., 0]
    assert apart(grey, rgb @ [0.299, 0.587, 0.114]) <= 3


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_grey_of_a_jpeg_is_pillows_grey(mode):
    data = encoded(Image.fromarray(scene(noise=0)).convert(mode), "JPEG", quality=95)
    grey = np.asarray(Image.open(io.BytesIO(data)).convert("RGB").convert("L"))
    assert apart(decoded(data, channel_order="GRAY")[..., 0], grey) <= 3


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(
    ("mean", "scale"),
    [
        ((0.0,), (1 / 255,)),
        ((127.5,), (1 / 127.5,)),
        ((123.68, 116.779, 103.939), (0.017, 0.018, 0.019)),
        ((0.0, 1.0, 2.0), (1.0,)),
    ],
)
def test_floats_are_the_difference_from_the_mean_times_scale(layout, mean, scale):
    image = scene()
    got = decoded(encoded(image), dtype=FLOAT32, mean=mean, scale=scale, layout=layout)
    want = (image.astype(np.float32) - np.float32(mean)) * np.float32(scale)
    np.testing.assert_array_equal(got, want if layout == "NHWC" else want.transpose(2, 0, 1))


def test_half_precision_is_rounded_from_float32():
    data = encoded(scene())
    options = {"mean": (123.68, 116.779, 103.939), "scale": (0.017,)}
    single = decoded(data, dtype=FLOAT32, **options)
    np.testing.assert_array_equal(decoded(data, dtype=BY_NAME["float16"], **options), single.astype(np.float16))


def test_pixels_that_are_whole_are_not_rounded_again():
    resized = scene()
    assert images._whole(resized) is resized
    np.testing.assert_array_equal(images._whole(np.float32([0.5, 1.5, 254.6])), [0, 2, 255])


def test_uint8_ignores_mean_and_scale():
    data = encoded(scene())
    np.testing.assert_array_equal(decoded(data, mean=(99.0,), scale=(3.0,)), scene())


@pytest.mark.parametrize("dtype", ["int32", "int8", "string", "bool"])
def test_a_picture_becomes_nothing_but_uint8_and_floats(dtype):
    with pytest.raises(ScoringError) as caught:
        decoded(encoded(scene()), dtype=BY_NAME[dtype])
    assert caught.value.kind is Kind.INVALID


# Resizing


GRIDS = {  # new pixel, old size, new size -> where it lies in the old picture
    "half_pixel": lambda target, old, new: (target + 0.5) * old / new - 0.5,
    "legacy": lambda target, old, new: target * old / new,
    "align_corners": lambda target, old, new: target * (old - 1) / (new - 1),
}


def slow_bilinear(image: np.ndarray, height: int, width: int, grid: str = "half_pixel") -> np.ndarray:
    """Edges repeated, in float64."""

    def weights(old: int, new: int) -> np.ndarray:
        matrix = np.zeros((new, old))
        for target in range(new):
            source = GRIDS[grid](target, old, new)
            low = int(np.floor(source))
            matrix[target, min(max(low, 0), old - 1)] += 1 - (source - low)
            matrix[target, min(max(low + 1, 0), old - 1)] += source - low
        return matrix

    lines = np.tensordot(weights(image.shape[0], height), image, (1, 0))
    return np.einsum("jw,iwc->ijc", weights(image.shape[1], width), lines)


def slow_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The mean over the area that each new pixel covers, in float64."""

    def weights(old: int, new: int) -> np.ndarray:
        edges = np.arange(new + 1) * old / new
        left, right = np.arange(old), np.arange(old) + 1
        overlap = np.minimum(edges[1:, None], right) - np.maximum(edges[:-1, None], left)
        return overlap.clip(0) * new / old

    lines = np.tensordot(weights(image.shape[0], height), image, (1, 0))
    return np.einsum("jw,iwc->ijc", weights(image.shape[1], width), lines)


@pytest.mark.parametrize("size", [(60, 81), (100, 100), (31, 41), (90, 41)])
def test_stretch_is_bilinear_within_one_grey_level(size):
    assert apart(decoded(encoded(scene()), size), slow_bilinear(scene(), *size)) <= 1


@pytest.mark.parametrize("size", [(20, 20), (30, 39), (7, 80), (1, 1)])
def test_strong_shrinking_takes_the_mean_over_the_area_within_one_grey_level(size):
    assert apart(decoded(encoded(scene(noise=60)), size), slow_area(scene(noise=60), *size)) <= 1


@pytest.mark.parametrize("size", [(40, 30), (100, 100), (150, 130), (30, 130)])
@pytest.mark.parametrize("resampling", ["half_pixel", "legacy", "align_corners"])
def test_a_graphs_own_bilinear_resize_takes_four_pixels_however_far_it_shrinks(resampling, size):
    image = scene(100, 100, noise=20)
    want = slow_bilinear(image, *size, grid=resampling)
    assert apart(decoded(encoded(image), size, resampling=resampling), want) <= 1


def test_the_fast_transform_is_a_few_levels_from_the_accurate_one_and_only_on_request():
    data = encoded(scene(noise=60), "JPEG", quality=90)
    accurate = decoded(data)
    assert apart(accurate, seen_by_pillow(data)) == 0
    assert 0 < apart(decoded(data, fast_dct=True), accurate) <= 6


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_graphs_own_resize_begins_with_the_whole_picture(form):
    """Stripes of one pixel: a decoder that shrinks on the way would make them all grey."""
    data = encoded(np.tile(np.array([0, 255], np.uint8), (240, 120)), form)
    half = decoded(data, (240, 120), channel_order="GRAY", resampling="legacy")
    assert half.std() < 5
    assert half.mean() < 30
    assert 120 < decoded(data, (240, 120), channel_order="GRAY", resampling="area").mean() < 135


def test_shrinking_one_side_and_growing_the_other_takes_the_mean_first():
    image = scene(20, 400, noise=60)
    want = slow_bilinear(slow_area(image, 20, 40), 50, 40)
    assert apart(decoded(encoded(image), (50, 40)), want) <= 1.5  # rounded twice


@pytest.mark.parametrize(
    ("stored", "size", "grown"),
    [
        ((300, 400), (224, 224), (256, 341)),
        ((400, 300), (224, 224), (341, 256)),
        ((220, 220), (224, 224), (255, 255)),  # single precision: 220 * (256 / 220) is just below 256
        ((240, 240), (224, 224), (256, 256)),
        ((300, 400), (299, 299), (341, 454)),
        ((300, 400), (200, 224), (228, 304)),  # the taller need decides
        ((300, 300), (224, 300), (342, 342)),
        ((50, 60), (1, 1), (1, 1)),
    ],
)
def test_fit_crop_resizes_by_256_to_224_truncated_and_keeps_the_middle(stored, size, grown):
    image = scene(*stored)
    slow = slow_area if min(stored[0] / grown[0], stored[1] / grown[1]) > 2 else slow_bilinear
    top, left = (int((new - kept) / 2) for new, kept in zip(grown, size, strict=True))
    want = slow(image, *grown)[top : top + size[0], left : left + size[1]]
    got = decoded(encoded(image), size, resize="fit-crop")
    assert got.shape == (*size, 3)
    assert apart(got, want) <= 1


def test_a_strip_that_fit_crop_would_blow_up_is_too_large():
    error = refusal(encoded(scene(1, 8000)), (224, 224), max_pixels=2**20, resize="fit-crop")
    assert error.kind is Kind.TOO_LARGE
    assert "8000 x 1 pixels" in error.message


def test_the_longest_strips_are_stretched():
    assert decoded(encoded(np.full((1, 65000, 3), 9, np.uint8), "JPEG"), (8, 8)).shape == (8, 8, 3)
    assert decoded(encoded(np.full((90000, 1, 3), 9, np.uint8)), (8, 8)).max() == 9


@pytest.mark.parametrize(
    ("stored", "inner", "at"),
    [((50, 100), (20, 40), (10, 0)), ((100, 50), (40, 20), (0, 10)), ((2, 900), (1, 40), (19, 0))],
)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_letterbox_fits_the_longer_side_and_leaves_black_bars(stored, inner, at, layout):
    image = scene(*stored) // 2 + 100
    got = decoded(encoded(image), (40, 40), resize="letterbox", layout=layout)
    got = got if layout == "NHWC" else got.transpose(1, 2, 0)
    slow = slow_area if stored[1] / 40 > 2 or stored[0] / 40 > 2 else slow_bilinear
    want = np.zeros((40, 40, 3))
    want[at[0] : at[0] + inner[0], at[1] : at[1] + inner[1]] = slow(image, *inner)
    assert apart(got, want) <= 1


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_letterbox_bars_are_the_mean_in_floats(layout):
    data = encoded(scene(50, 100))
    got = decoded(data, (40, 40), FLOAT32, resize="letterbox", mean=(100.0, 50.0, 25.0), scale=(0.5,), layout=layout)
    rows = got if layout == "NHWC" else got.transpose(1, 2, 0)
    assert not rows[:10].any()
    assert not rows[30:].any()
    assert rows[10:30].any()


@pytest.mark.parametrize("size", [(224, 224), (100, 300), (64, 64)])
@pytest.mark.parametrize("resize", ["stretch", "fit-crop", "letterbox"])
def test_a_large_jpeg_comes_out_as_if_it_had_been_decoded_whole(size, resize):
    data = encoded(scene(700, 1000, noise=0), "JPEG", quality=95)
    whole = encoded(seen_by_pillow(data), "PNG")
    assert apart(decoded(data, size, resize=resize), decoded(whole, size, resize=resize)) <= 8


def test_a_jpeg_is_never_decoded_below_the_size_wanted():
    """Stripes of one pixel: decoded at half the size they would be all grey."""
    stripes = np.tile(np.array([0, 255], np.uint8), (240, 120))
    data = encoded(stripes, "JPEG", quality=100)
    assert decoded(data, (100, 240), channel_order="GRAY").std() > 120
    assert decoded(data, (100, 120), channel_order="GRAY").std() < 5


# EXIF


def turned_jpeg(orientation: int, form: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "a maker, so that the tag is not the first"
    exif[0x0112] = orientation
    return encoded(scene(noise=0), form, exif=exif, **({"quality": 95} if form == "JPEG" else {}))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture_when_asked(form, orientation):
    data = turned_jpeg(orientation, form)
    want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert apart(decoded(data, want.shape[:2], exif=True), want) <= JPEG_TOLERANCE


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_ignored_unless_asked(form, orientation):
    data = turned_jpeg(orientation, form)
    assert apart(decoded(data), seen_by_pillow(data)) <= JPEG_TOLERANCE


@pytest.mark.parametrize("resize", ["stretch", "fit-crop", "letterbox"])
def test_a_turned_large_jpeg_keeps_its_sides_apart_when_scaled(resize):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(scene(600, 1200, noise=0), "JPEG", quality=95, exif=exif)
    upright = encoded(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    got, want = (decoded(d, (200, 100), resize=resize, exif=True) for d in (data, upright))
    assert apart(got, want) <= 8


def test_broken_exif_means_as_stored():
    whole = turned_jpeg(6)
    start = whole.index(b"Exif\0\0") + 6
    assert exif_orientation(whole) == 6
    for offset in range(8):
        broken = whole[: start + offset] + b"\xff" + whole[start + offset + 1 :]
        assert exif_orientation(broken) == 1


def test_exif_of_any_cut_is_an_orientation():
    whole = turned_jpeg(8)
    assert {exif_orientation(whole[:length]) for length in range(2, 400)} == {1, 8}


# Refusals


def test_what_is_no_picture_is_named():
    for data, name in ((b"GIF89a...", "a GIF"), (b"RIFF\0\0\0\0WEBPVP8 ", "a WebP"), (b"%PDF-1.7", "a PDF")):
        error = refusal(data)
        assert error.kind is Kind.UNSUPPORTED_MEDIA
        assert error.message == f"want a JPEG or PNG picture, got {name}"


def test_unknown_bytes_are_shown():
    error = refusal(b"hello world")
    assert error.kind is Kind.UNSUPPORTED_MEDIA
    assert "got 11 bytes that begin with 68 65 6c 6c 6f 20 77 6f" in error.message


def test_no_bytes_are_undecodable():
    assert refusal(b"").kind is Kind.UNDECODABLE


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_anywhere_is_undecodable(mode, progressive):
    data = encoded(Image.fromarray(scene()).convert(mode), "JPEG", progressive=progressive)
    for length in [*range(2, len(data), 17), *range(len(data) - 20, len(data))]:
        assert refusal(data[:length]).kind is Kind.UNDECODABLE, length


def rarely_sampled_jpeg() -> bytes:
    """CMYK with ink C twice as fine as the others: TurboJPEG has no name for that."""
    return encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95, subsampling=2)


@pytest.mark.parametrize("order", ["RGB", "BGR", "GRAY"])
def test_a_rarely_sampled_jpeg_has_pillows_colours(order):
    data = rarely_sampled_jpeg()
    rgb = seen_by_pillow(data)
    want = {"RGB": rgb, "BGR": rgb[..., ::-1], "GRAY": rgb @ [[0.299], [0.587], [0.114]]}[order]
    assert apart(decoded(data, channel_order=order), want) <= JPEG_TOLERANCE


def test_a_jpeg_of_4_4_1_is_read():
    data = bytearray(encoded(scene(), "JPEG", subsampling=0))
    data[data.index(b"\xff\xc0") + 11] = 0x14  # its pixels are nonsense then, but they are read
    assert "extraneous bytes" in refusal(bytes(data)).message


def test_a_rarely_sampled_jpeg_cut_anywhere_is_undecodable():
    data = rarely_sampled_jpeg()
    for length in [*range(2, len(data), 17), *range(len(data) - 20, len(data))]:
        assert refusal(data[:length]).kind is Kind.UNDECODABLE, length


def test_a_rarely_sampled_jpeg_bomb_is_refused_by_its_header():
    data = bytearray(rarely_sampled_jpeg())
    size_at = data.index(b"\xff\xc0") + 5
    data[size_at : size_at + 4] = struct.pack(">HH", 60_000, 50_000)
    assert refusal(bytes(data)).kind is Kind.TOO_LARGE


def test_a_large_jpeg_cut_anywhere_is_undecodable():
    data = encoded(scene(600, 800), "JPEG")
    for length in range(len(data) // 10, len(data), len(data) // 10):
        assert refusal(data[:length]).message.endswith("the JPEG ends early")


@pytest.mark.parametrize("image", [scene(), interlaced_png], ids=["plain", "interlaced"])
def test_a_png_cut_anywhere_is_undecodable(image):
    data = encoded(image) if isinstance(image, np.ndarray) else image()[1]
    for length in [*range(4, len(data), 97), *range(len(data) - 20, len(data))]:
        assert refusal(data[:length]).kind is Kind.UNDECODABLE, length


def test_a_png_with_too_few_pixels_inside_sound_chunks_is_undecodable():
    lines = b"".join(b"\0" + line.tobytes() for line in scene())
    assert decoded(png(80, 60, zlib.compress(lines))).shape == (60, 80, 3)
    for pixels in (zlib.compress(lines[: len(lines) // 2]), zlib.compress(lines)[:-500], b"", b"no zlib"):
        assert refusal(png(80, 60, pixels)).kind is Kind.UNDECODABLE


@pytest.mark.parametrize("chunk_name", [b"IHDR", b"IDAT", b"PLTE"])
def test_a_png_with_a_wrong_checksum_is_undecodable(chunk_name):
    data = bytearray(encoded(Image.fromarray(scene()).quantize(200)))
    data[data.index(chunk_name) + 10] ^= 1
    error = refusal(bytes(data))
    assert error.kind is Kind.UNDECODABLE
    assert f"{chunk_name.decode()} chunk has a wrong checksum" in error.message


def test_pngs_of_odd_chunks_are_undecodable():
    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", 80, 60, 8, 2, 0, 0, 0))
    iend, signature = chunk(b"IEND", b""), b"\x89PNG\r\n\x1a\n"
    idat = chunk(b"IDAT", zlib.compress(bytes(60 * 241)))
    assert decoded(signature + ihdr + idat + iend).shape == (60, 80, 3)
    for body in (ihdr + iend, ihdr + ihdr + idat + iend, idat + ihdr + iend, iend, idat + iend, b""):
        assert refusal(signature + body).kind is Kind.UNDECODABLE
    assert refusal(signature + chunk(b"IHDR", b"short") + idat + iend).kind is Kind.UNDECODABLE


def test_a_png_of_endless_chunks_is_undecodable():
    assert refusal(png(80, 60, b"", before=chunk(b"tEXt", b"") * 70_000)).kind is Kind.UNDECODABLE


def test_a_png_bomb_is_refused_by_its_header():
    error = refusal(png(60_000, 60_000, zlib.compress(bytes(1000))), max_pixels=64 * 2**20)
    assert error.kind is Kind.TOO_LARGE
    assert "60000 x 60000" in error.message
    assert str(64 * 2**20) in error.message


def test_a_jpeg_bomb_is_refused_by_its_header():
    data = bytearray(encoded(scene(), "JPEG"))
    size_at = data.index(b"\xff\xc0") + 5
    data[size_at : size_at + 4] = struct.pack(">HH", 60_000, 50_000)
    error = refusal(bytes(data), max_pixels=64 * 2**20)
    assert error.kind is Kind.TOO_LARGE
    assert "50000 x 60000" in error.message


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_the_pixel_limit_itself_is_allowed(form):
    data = encoded(scene(), form)
    decode_picture(data, Preprocessing((8, 8)), 4800, dtype=UINT8)
    assert refusal(data, max_pixels=4799).kind is Kind.TOO_LARGE


def test_pictures_without_area_are_undecodable():
    jpeg = bytearray(encoded(scene(), "JPEG"))
    size_at = jpeg.index(b"\xff\xc0") + 5
    jpeg[size_at : size_at + 2] = b"\0\0"
    for data in (bytes(jpeg), png(0, 60, b""), png(80, 0, b"")):
        assert refusal(data).kind is Kind.UNDECODABLE


def test_a_progressive_jpeg_of_thousands_of_scans_is_refused():
    data = encoded(scene(), "JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    error = refusal(data[:first] + scan * 3000 + data[first:])
    assert error.kind is Kind.UNDECODABLE
    assert "scans" in error.message


def test_a_film_behind_a_jpeg_does_not_count_as_scans():
    film = random.Random(3).randbytes(2**21) + b"\xff\xda" * 400
    data = encoded(scene(), "JPEG")
    np.testing.assert_array_equal(decoded(data + film), decoded(data))


def test_pictures_decode_alike_on_many_threads():
    from concurrent.futures import ThreadPoolExecutor

    pictures = [encoded(scene(100 + n, 120), form) for n in range(8) for form in ("JPEG", "PNG")]
    alone = [decoded(data) for data in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decoded, pictures))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_opencv_is_told_to_keep_to_one_thread():
    decoded(encoded(scene()))
    assert cv2.getNumThreads() == 1


# Damage


def mend_checksums(data: bytearray) -> bytes:
    """Makes the damaged chunks of a PNG look sound, so that the decoder behind sees the damage."""
    at = 8
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if end > len(data):
            break
        data[end - 4 : end] = struct.pack(">I", zlib.crc32(data[at + 4 : end - 4]))
        at = end
    return bytes(data)


SOURCES = {
    "jpeg": lambda: encoded(scene(), "JPEG"),
    "progressive jpeg": lambda: encoded(scene(), "JPEG", progressive=True),
    "cmyk jpeg": lambda: encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG"),
    "rare jpeg": rarely_sampled_jpeg,
    "turned jpeg": lambda: turned_jpeg(6),
    "png": lambda: encoded(scene()),
    "palette png": lambda: encoded(Image.fromarray(scene()).quantize(200)),
    "interlaced png": lambda: interlaced_png()[1],
    "turned png": lambda: turned_jpeg(6, "PNG"),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_damaged_picture_is_a_whole_tensor_or_a_refusal(source):
    chance, whole = random.Random(source), SOURCES[source]()
    prep = Preprocessing((32, 32), exif=True, resize="fit-crop")
    for turn in range(150):
        data = bytearray(whole)
        span = len(data) if turn % 2 else min(len(data), 700)  # headers are the smaller part and the more delicate
        for _ in range(chance.randint(1, 5)):
            data[chance.randrange(span)] = chance.randrange(256)
        kinds = outcome(mend_checksums(data) if "png" in source and turn % 3 else bytes(data), prep)
        assert kinds in ("tensor", Kind.UNDECODABLE, Kind.TOO_LARGE, Kind.UNSUPPORTED_MEDIA)


def outcome(data: bytes, prep: Preprocessing) -> object:
    try:
        got = decode_picture(data, prep, 2**20, dtype=UINT8)
    except ScoringError as error:
        return error.kind
    return "tensor" if got.shape == (*prep.size, prep.channels) and got.dtype == np.uint8 else got


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (9, 7), (224, 224)])
def test_channels_are_split_to_different_places_of_a_vector(size):
    picture = scene(*size)
    split = images._split(picture)
    assert len({channel.ctypes.data % 64 for channel in split}) == 3
    np.testing.assert_array_equal(np.stack(split, -1), picture)

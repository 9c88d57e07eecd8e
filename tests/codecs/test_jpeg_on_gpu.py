"""The GPU's decoder, driven for real through the library's own CPU code; only the device is another."""

import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from accelserve.builtin import pictures
from accelserve.codecs.images import decode_picture
from accelserve.codecs.jpeg import decode_jpeg
from accelserve.codecs.jpeg_on_gpu import GpuJpegDecoder, check_decoder, open_gpu_decoder
from accelserve.errors import Kind, ScoringError
from accelserve.preprocessing import Preprocessing
from accelserve.tensors import BY_NAME

WHOLE = (2**16, 2**16)  # no scaling in the DCT


@pytest.fixture(scope="module")
def library():
    os.environ["PYNVIMGCODEC_VERBOSITY"] = "0"
    from nvidia import nvimgcodec

    return nvimgcodec


@pytest.fixture
def decoder(library):
    def open_decoder():
        own_code = [library.Backend(library.CPU_ONLY)]
        return library.Decoder(device_id=library.NVIMGCODEC_DEVICE_CPU_ONLY, max_num_cpu_threads=1, backends=own_code)

    return GpuJpegDecoder(open_decoder, library)


def jpeg(mode="RGB", size=(53, 37), **options) -> bytes:
    noise = np.random.default_rng(5).integers(0, 256, (9, 13, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size).convert(mode).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


@pytest.mark.parametrize("channel_order", ["RGB", "BGR", "GRAY"])
@pytest.mark.parametrize(
    "data",
    [jpeg(subsampling=0), jpeg(subsampling=1), jpeg(subsampling=2), jpeg("L"), jpeg(progressive=True)],
    ids=["4:4:4", "4:2:2", "4:2:0", "grey", "progressive"],
)
def test_every_kind_of_jpeg_gives_the_cpus_pixels_in_every_channel_order(decoder, data, channel_order):
    np.testing.assert_array_equal(decoder(data, channel_order, (1, 1)), decode_jpeg(data, channel_order, WHOLE))
    assert decoder.left_to_cpu == 0


def test_a_picture_goes_the_usual_way_from_the_decoders_pixels_on(decoder):
    prep = Preprocessing((30, 40), resize="fit-crop", layout="NCHW", mean=(127.5,), scale=(1 / 127.5,))
    data, float32 = jpeg(subsampling=0), BY_NAME["float32"]
    got = decode_picture(data, prep, dtype=float32, decode_jpeg=decoder)
    np.testing.assert_array_equal(got, decode_picture(data, prep, dtype=float32))


def test_bytes_of_a_larger_body_are_read_where_they_lie(decoder):
    body = b"--boundary" + jpeg() + b"--boundary"
    part = memoryview(body)[len(b"--boundary") : -len(b"--boundary")]
    np.testing.assert_array_equal(decoder(part, "RGB", (1, 1)), decode_jpeg(part, "RGB", WHOLE))


@pytest.mark.parametrize("kept", [0.5, 0.98], ids=["half", "nearly whole"])
def test_a_cut_picture_is_refused_with_the_cpus_reason_and_never_filled_in(decoder, kept):
    data = jpeg(size=(400, 300))
    with pytest.raises(ScoringError, match="ends early") as refusal:
        decoder(data[: int(len(data) * kept)], "RGB", (1, 1))
    assert refusal.value.kind is Kind.UNDECODABLE
    assert decoder.left_to_cpu == 1


def test_a_sound_picture_that_the_library_declines_is_decoded_on_the_cpu_and_counted(library):
    class Declines:
        def decode(self, *_, **__):
            return None

    decoder = GpuJpegDecoder(Declines, library)
    data = jpeg()
    np.testing.assert_array_equal(decoder(data, "RGB", WHOLE), decode_jpeg(data, "RGB", WHOLE))
    assert [(gauge.name, gauge.value) for gauge in decoder.gauges()] == [("accelserve_jpegs_left_to_cpu", 1)]


def test_threads_have_decoders_of_their_own(library, decoder):
    opened = []

    def open_decoder():
        opened.append(1)
        return decoder._open()

    shared, data = GpuJpegDecoder(open_decoder, library), jpeg(size=(300, 200))
    wanted = decode_jpeg(data, "RGB", WHOLE)
    with ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: shared(data, "RGB", (1, 1)), range(64)):
            np.testing.assert_array_equal(got, wanted)
    assert 1 <= len(opened) <= 4


def test_the_self_check_tells_the_difference_and_refuses_one_that_is_too_large(decoder, library):
    data = pictures()[0][0].read_bytes()
    assert check_decoder(decoder, data) == 0

    class Wrong:
        def decode(self, stream, params):
            return Darker(decoder._open().decode(stream, params=params))

    class Darker:
        def __init__(self, image):
            self._image = image

        def cpu(self):
            return np.asarray(self._image.cpu()) // 2

    with pytest.raises(ScoringError, match=r"differs from the CPU's decoder by \d+ of 255"):
        check_decoder(GpuJpegDecoder(Wrong, library), data)


def test_a_library_that_leaves_the_checks_picture_to_the_cpu_is_no_gpu_decoder(library):
    class Declines:
        def decode(self, *_, **__):
            return None

    with pytest.raises(ScoringError, match="gpu-jpeg") as refusal:
        check_decoder(GpuJpegDecoder(Declines, library), jpeg())
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_without_a_gpu_it_is_refused_and_never_replaced():
    with pytest.raises(ScoringError, match=r"gpu:7.*driver") as refusal:  # no host of the tests has eight
        open_gpu_decoder(7)
    assert refusal.value.kind is Kind.DEVICE_MISSING


def test_without_the_library_the_extra_that_brings_it_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    monkeypatch.delattr("nvidia.nvimgcodec", raising=False)
    with pytest.raises(ScoringError, match=r"pip install 'accelserve\[gpu-jpeg\]'") as refusal:
        open_gpu_decoder(0)
    assert refusal.value.kind is Kind.DEVICE_MISSING

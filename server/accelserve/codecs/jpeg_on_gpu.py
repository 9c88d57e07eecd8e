"""JPEG bytes -> pixels through NVIDIA's nvImageCodec, on a GPU: the same interface as `jpeg.decode_jpeg`.

Worth it where the host's cores are what is short. The library answers None, without a reason, for what it cannot
decode, and may fill in what a cut picture lacks: such pictures go to the CPU's decoder, which decodes or says why not.
"""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from accelserve.codecs.jpeg import decode_jpeg
from accelserve.codecs.picture_geometry import Pixels, Size
from accelserve.codecs.picture_headers import Buffer
from accelserve.errors import Kind, ScoringError
from accelserve.observability.metrics import Gauge

EXTRA = "pip install 'accelserve[gpu-jpeg]'"
TOLERANCE = 8  # of 255: an IDCT and a chroma filter of another make move a pixel by a few steps
_VERBOSITY = "PYNVIMGCODEC_VERBOSITY"  # it would write a line to stderr for each broken picture
_END_OF_IMAGE, _START_OF_SCAN = b"\xff\xd9", b"\xff\xda"


class GpuJpegDecoder:
    """One of the library's decoders for each thread that asks; they share nothing, so threads do not wait."""

    def __init__(self, open_decoder: Callable[[], Any], library: Any) -> None:
        """open_decoder: makes a `library.Decoder`. Tests give one that uses the library's CPU code."""
        self._open = open_decoder
        self._library = library
        self._own = threading.local()
        self._params = {
            order: library.DecodeParams(apply_exif_orientation=False, color_spec=colours, sample_format=samples)
            for order, colours, samples in (
                ("RGB", library.SRGB, library.I_RGB),
                ("BGR", library.SRGB, library.I_BGR),
                ("GRAY", library.GRAY, library.I_Y),
            )
        }
        self.left_to_cpu = 0  # pictures; threads may lose a count, which nobody minds

    def __call__(self, data: Buffer, channel_order: str, least: Size, fast_dct: bool = False) -> Pixels:
        image = self._decoded(data, channel_order) if _ends(data) else None
        if image is None:
            self.left_to_cpu += 1
            return decode_jpeg(data, channel_order, least, fast_dct)
        pixels: Pixels = np.asarray(image.cpu())
        return pixels

    def gauges(self) -> Iterator[Gauge]:
        text = "JPEGs that the GPU's decoder declined or that were cut, and the CPU's decoder got."
        yield Gauge("accelserve_jpegs_left_to_cpu", text, {}, self.left_to_cpu)

    def _decoded(self, data: Buffer, channel_order: str) -> Any:
        decoder = getattr(self._own, "decoder", None)
        if decoder is None:
            decoder = self._own.decoder = self._open()
        return decoder.decode(self._library.CodeStream(data), params=self._params[channel_order])


def open_gpu_decoder(device: int) -> GpuJpegDecoder:
    """The decoder on one GPU, by CUDA's number. Raises ScoringError(DEVICE_MISSING) naming what lacks."""
    os.environ.setdefault(_VERBOSITY, "0")
    try:
        from nvidia import nvimgcodec
    except ImportError as error:
        message = f"pictures cannot be decoded on gpu:{device}: nvImageCodec does not load ({error}): {EXTRA}"
        raise ScoringError(Kind.DEVICE_MISSING, message) from error
    kinds = (nvimgcodec.HW_GPU_ONLY, nvimgcodec.GPU_ONLY, nvimgcodec.HYBRID_CPU_GPU)

    def open_decoder() -> Any:
        """CPU_ONLY is not among its ways: it would be a silent fallback."""
        backends = [nvimgcodec.Backend(kind) for kind in kinds]
        return nvimgcodec.Decoder(device_id=device, max_num_cpu_threads=1, backends=backends)

    try:
        open_decoder()
    except RuntimeError as error:
        message = f"pictures cannot be decoded on gpu:{device}: {error} (driver, GPU, or {EXTRA} for nvJPEG)"
        raise ScoringError(Kind.DEVICE_MISSING, message) from error
    return GpuJpegDecoder(open_decoder, nvimgcodec)


def check_decoder(decoder: GpuJpegDecoder, jpeg: bytes) -> int:
    """Decode one sound JPEG on both sides; the largest difference of a pixel.

    Raises ScoringError(DEVICE_MISSING) if the GPU's decoder leaves it to the CPU, or differs by more than TOLERANCE.
    """
    left_before = decoder.left_to_cpu
    got, wanted = (decode(jpeg, "RGB", (1, 1)) for decode in (decoder, _whole_on_cpu))
    if decoder.left_to_cpu != left_before or got.shape != wanted.shape:
        raise ScoringError(Kind.DEVICE_MISSING, f"nvImageCodec does not decode JPEG on this GPU: {EXTRA} brings nvJPEG")
    difference = int(np.abs(got.astype(np.int16) - wanted).max())
    if difference > TOLERANCE:
        message = f"nvImageCodec differs from the CPU's decoder by {difference} of 255; want at most {TOLERANCE}"
        raise ScoringError(Kind.DEVICE_MISSING, message)
    return difference


def _whole_on_cpu(data: Buffer, channel_order: str, _: Size) -> Pixels:
    """At the stored size: no side may be below a side of 2**16."""
    return decode_jpeg(data, channel_order, (2**16, 2**16))


def _ends(data: Buffer) -> bool:
    """Whether an end of image follows the last start of a scan. Of a sound picture with more behind it, it may err."""
    content = bytes(data)
    return content.rfind(_END_OF_IMAGE) > content.rfind(_START_OF_SCAN)

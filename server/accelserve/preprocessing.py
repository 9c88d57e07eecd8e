"""What is done to a picture before a dense image model sees it: the value, not the work (codecs/images.py)."""

from dataclasses import dataclass, replace

from accelserve.errors import Kind, ScoringError

RESIZE = ("stretch", "fit-crop", "letterbox", "azure-accel")
CHANNEL_ORDERS = ("RGB", "BGR", "GRAY")
LAYOUTS = ("NHWC", "NCHW")
RESAMPLING = ("server", "half_pixel", "half_pixel_antialias", "legacy", "align_corners", "area")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """decode -> orient -> resize -> order channels -> (x - mean) * scale -> layout.

    size: (height, width) in pixels of the model's input.
    resize: "stretch" to size; "fit-crop": the shorter side becomes 256/224 of size's, then a centre crop of size;
    "azure-accel": the same to the pixel as azureml-accel-models' preprocess_array did it, on the "legacy" grid and
    without rounding before the mean; "letterbox": the longer side fits, the rest is filled with the mean (or black).
    mean, scale: one number, or one per channel in the order of `channel_order`; x is 0..255. Ignored by uint8 inputs.
    exif: turn the picture as its EXIF orientation says.
    guessed: the values were read from the signature because nothing was said.
    fast_dct: JPEGs by libjpeg's faster and coarser inverse transform, a few levels off: TensorFlow's own choice.
    resampling: "server": as is best here, bilinear with half-pixel centres, or the mean over the area where a picture
    shrinks by more than 2, begun in the JPEG decoder. The others are how a model's own graph may do it, from the full
    picture: bilinear always, with half-pixel centres, or where pixel i lies at i * in / out ("legacy"), or at
    i * (in - 1) / (out - 1) ("align_corners"); or the mean over the area always ("area") or where it shrinks
    ("half_pixel_antialias", whose own filter is a triangle).
    """

    size: tuple[int, int]
    resize: str = "stretch"
    channel_order: str = "RGB"
    layout: str = "NHWC"
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    exif: bool = False
    guessed: bool = False
    fast_dct: bool = False
    resampling: str = "server"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("resize", self.resize, RESIZE),
            ("channel_order", self.channel_order, CHANNEL_ORDERS),
            ("layout", self.layout, LAYOUTS),
            ("resampling", self.resampling, RESAMPLING),
        ):
            if value not in allowed:
                raise ScoringError(
                    Kind.INVALID, f"preprocessing {name} must be one of {', '.join(allowed)}, got {value!r}"
                )
        if self.resize == "azure-accel" and self.resampling not in ("server", "legacy"):
            message = f'preprocessing resize = "azure-accel" samples as "legacy" does, not as {self.resampling!r}'
            raise ScoringError(Kind.INVALID, message)
        if min(self.size) < 1:
            raise ScoringError(Kind.INVALID, f"preprocessing size must be positive, got {list(self.size)}")
        for name, numbers in (("mean", self.mean), ("scale", self.scale)):
            if len(numbers) not in (1, self.channels):
                wanted = f"1 or {self.channels} numbers"
                raise ScoringError(Kind.INVALID, f"preprocessing {name} must be {wanted}, got {list(numbers)}")

    @property
    def grid(self) -> str:
        """`resampling`, or what `resize` implies."""
        return "legacy" if self.resize == "azure-accel" else self.resampling

    @property
    def coarse_dct(self) -> bool:
        """`fast_dct`, or what `resize` implies: preprocess_array left it to TensorFlow."""
        return self.fast_dct or self.resize == "azure-accel"

    @property
    def channels(self) -> int:
        return 1 if self.channel_order == "GRAY" else 3

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """Of one picture as the model takes it, as `layout` says."""
        height, width = self.size
        return (height, width, self.channels) if self.layout == "NHWC" else (self.channels, height, width)

    def host_part(self) -> "Preprocessing":
        """What is left for the host where a device normalises and lays out: pixels [H, W, C]."""
        return replace(self, layout="NHWC", mean=(0.0,), scale=(1.0,))


DEFAULT_MAX_PIXELS = 64 * 2**20  # of one picture; guards against decompression bombs

"""What is done to a picture before a dense image model sees it: the value, not the work (codecs/images.py)."""

from dataclasses import dataclass, replace

from accelserve.errors import Kind, ScoringError

RESIZE = ("stretch", "fit-crop", "letterbox")
CHANNEL_ORDERS = ("RGB", "BGR", "GRAY")
LAYOUTS = ("NHWC", "NCHW")
SHRINK = ("area", "bilinear")


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """decode -> orient -> resize -> order channels -> (x - mean) * scale -> layout.

    size: (height, width) in pixels of the model's input.
    resize: "stretch" to size; "fit-crop": the shorter side becomes 256/224 of size's, then a centre crop of size, as
    the Azure accelerated models did; "letterbox": the longer side fits, the rest is filled with the mean (or black).
    mean, scale: one number, or one per channel in the order of `channel_order`; x is 0..255. Ignored by uint8 inputs.
    exif: turn the picture as its EXIF orientation says.
    guessed: the values were read from the signature because nothing was said.
    shrink: what becomes of a picture that is more than twice as large: "area", the mean of all that a pixel covers;
    "bilinear", of its four nearest alone, from the full decoded picture, as a model's own graph may do it.
    """

    size: tuple[int, int]
    resize: str = "stretch"
    channel_order: str = "RGB"
    layout: str = "NHWC"
    mean: tuple[float, ...] = (0.0,)
    scale: tuple[float, ...] = (1.0,)
    exif: bool = False
    guessed: bool = False
    shrink: str = "area"

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("resize", self.resize, RESIZE),
            ("channel_order", self.channel_order, CHANNEL_ORDERS),
            ("layout", self.layout, LAYOUTS),
            ("shrink", self.shrink, SHRINK),
        ):
            if value not in allowed:
                raise ScoringError(
                    Kind.INVALID, f"preprocessing {name} must be one of {', '.join(allowed)}, got {value!r}"
                )
        if min(self.size) < 1:
            raise ScoringError(Kind.INVALID, f"preprocessing size must be positive, got {list(self.size)}")
        for name, numbers in (("mean", self.mean), ("scale", self.scale)):
            if len(numbers) not in (1, self.channels):
                wanted = f"1 or {self.channels} numbers"
                raise ScoringError(Kind.INVALID, f"preprocessing {name} must be {wanted}, got {list(numbers)}")

    @property
    def channels(self) -> int:
        return 1 if self.channel_order == "GRAY" else 3

    def host_part(self) -> "Preprocessing":
        """What is left for the host where a device normalises and lays out: pixels [H, W, C]."""
        return replace(self, layout="NHWC", mean=(0.0,), scale=(1.0,))


DEFAULT_MAX_PIXELS = 64 * 2**20  # of one picture; guards against decompression bombs

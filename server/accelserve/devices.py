"""Where a model may be asked to run: the kinds of devices, and what `--device` can say."""

from dataclasses import dataclass
from enum import Enum

from accelserve.errors import Kind, ScoringError

DEVICE_FORMS = "auto, cpu, gpu, gpu:0, gpu:0,1, fpga, fpga:ID or fpga-emulator"
_MOST_DIGITS = 4  # of a GPU's number; Python refuses to read numbers of thousands of digits


class DeviceKind(Enum):
    CPU = "cpu"
    GPU = "gpu"
    FPGA = "fpga"
    FPGA_EMULATOR = "fpga-emulator"


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """Where a model is to run. kind None: a usable GPU, else the CPU. ids: "0" of "gpu:0"; empty: any of the kind."""

    kind: DeviceKind | None = None
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.kind is None:
            return "auto"
        return f"{self.kind.value}:{','.join(self.ids)}" if self.ids else self.kind.value


def parse_device_request(text: str) -> DeviceRequest:
    """`auto`, `cpu`, `gpu`, `gpu:0`, `gpu:0,1`, `fpga`, `fpga:0000:65:00.0`, `fpga-emulator`.

    Whether the device is here is the back ends' to say. Raises ScoringError(INVALID) naming these forms.
    """
    word, colon, rest = text.strip().partition(":")
    ids = tuple(part.strip() for part in rest.split(",")) if colon else ()
    kind = next((k for k in DeviceKind if k.value == word), None)
    numbered = kind in (DeviceKind.GPU, DeviceKind.FPGA)
    well_formed = all(ids) and len(set(ids)) == len(ids) and (kind is not DeviceKind.GPU or all(map(_is_number, ids)))
    if (kind is None and word != "auto") or (ids and not numbered) or not well_formed:
        raise ScoringError(Kind.INVALID, f"device: want {DEVICE_FORMS}, got {text!r}")
    return DeviceRequest(kind, ids)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS and str(int(text)) == text

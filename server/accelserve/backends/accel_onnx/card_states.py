"""What a back end knows of its devices' states beyond whether they are there."""

from collections.abc import Iterator
from contextlib import contextmanager

from accelserve.backends.base import Device, DeviceState, Health


class CardStates:
    """One object per back end; `health` may be asked by any thread while another loads."""

    def __init__(self) -> None:
        self._lost: dict[str, str] = {}
        self._programming: dict[str, str] = {}

    @contextmanager
    def programming(self, device: Device, reason: str) -> Iterator[None]:
        """PROGRAMMING while the block runs; a device that comes up in it is lost no longer."""
        self._programming[device.id] = reason
        try:
            yield
            self._lost.pop(device.id, None)
        finally:
            self._programming.pop(device.id, None)

    def note_lost(self, device: Device, reason: str) -> None:
        self._lost[device.id] = reason

    def health(self, device: Device, there: bool) -> Health:
        """there: whether the device is found now."""
        if device.id in self._programming:
            return Health(DeviceState.PROGRAMMING, self._programming[device.id])
        if device.id in self._lost:
            return Health(DeviceState.LOST, self._lost[device.id])
        return Health(DeviceState.READY) if there else Health(DeviceState.ABSENT, f"{device.id} is not found")

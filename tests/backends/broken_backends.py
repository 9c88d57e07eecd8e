"""Back ends that are broken in one way each, and the samples to check them with: for the kit's own test."""

import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import broken_sessions as broken
import numpy as np
from broken_sessions import STEPS, Sound, closing, running

from accelserve.backends.base import Capabilities, Device, DeviceState, Health, Inventory, ModelArtifact
from accelserve.backends.conformance import PictureConformance, rows_of_floats
from accelserve.backends.synthetic.backend import SyntheticBackend
from accelserve.backends.synthetic.conformance_sample import ExclusiveSyntheticSample, SyntheticSample
from accelserve.devices import DeviceKind
from accelserve.tensors import Tensor

NUMBERS = itertools.count()
LIMITS = Capabilities(frozenset({"synthetic"}), deterministic=True)
CARD = Device("fpga-emulator:0", DeviceKind.FPGA_EMULATOR, "played", exclusive=True, emulated=True)


class SoundBackend(SyntheticBackend):
    session: type = Sound
    limits: Capabilities | None = None
    device: Device | None = None

    def __init__(self) -> None:
        super().__init__(lambda seconds: None, self.device, self.limits)

    def load(self, prepared: Any, device: Device, options: Any, lease: Any) -> Any:
        return self.session(super().load(prepared, device, options, lease), lease)


class OtherVersion(SoundBackend):
    api_version = 2


class DeviceTwice(SoundBackend):
    def inventory(self) -> Inventory:
        return Inventory(super().inventory().devices * 2)


class NamelessFeature(SoundBackend):
    def features(self) -> Mapping[str, tuple[str, ...]]:
        return {"speed": ("",)}


class NoFormat(SoundBackend):
    limits = replace(LIMITS, formats=frozenset())


class NoRows(SoundBackend):
    limits = replace(LIMITS, max_batch=0)


class Ill(SoundBackend):
    def health(self, device: Device) -> Health:
        return Health(DeviceState.DEGRADED, "hot")


class HealthyForEver(SoundBackend):
    def health(self, device: Device) -> Health:
        return Health(DeviceState.READY)


class ProgressBackwards(SoundBackend):
    def prepare(self, artifact: Any, device: Any, options: Any, cache: Any, progress: Any) -> Any:
        progress("half", 0.5)
        progress("less", 0.2)
        return super().prepare(artifact, device, options, cache, progress)


class PreparesAgain(SoundBackend):
    def prepare(self, artifact: Any, device: Any, options: Any, cache: Any, progress: Any) -> Any:
        cache.folder(f"digest-{next(NUMBERS)}", lambda empty: None)
        return super().prepare(artifact, device, options, cache, progress)


class WritesIntoTheModel(SoundBackend):
    def prepare(self, artifact: Any, device: Any, options: Any, cache: Any, progress: Any) -> Any:
        artifact.path.write_text(artifact.path.read_text() + "# prepared\n")
        return super().prepare(artifact, device, options, cache, progress)


class ClosesToPrepare(SoundBackend):
    serving: Any = None

    def prepare(self, artifact: Any, device: Any, options: Any, cache: Any, progress: Any) -> Any:
        if self.serving is not None:
            self.serving.close()
        return super().prepare(artifact, device, options, cache, progress)

    def load(self, prepared: Any, device: Device, options: Any, lease: Any) -> Any:
        self.serving = super().load(prepared, device, options, lease)
        return self.serving


class FindsNoFile(SoundBackend):
    def prepare(self, artifact: Any, device: Any, options: Any, cache: Any, progress: Any) -> Any:
        artifact.path.read_text()
        return super().prepare(artifact, device, options, cache, progress)


class TakesAnySetting(SoundBackend):
    def load(self, prepared: Any, device: Device, options: Any, lease: Any) -> Any:
        return super().load(prepared, device, replace(options, extra={}), lease)


class ElsewhereThanAsked(SoundBackend):
    def load(self, prepared: Any, device: Device, options: Any, lease: Any) -> Any:
        session = super().load(prepared, device, options, lease)
        session.inner.device = CARD
        return session


class OverlapsBadly(SoundBackend):
    limits = replace(LIMITS, max_inflight=4)
    session = running(broken.of_whoever_came_last)


class Exclusive(SoundBackend):
    device = CARD
    limits = replace(LIMITS, models_per_device=1)


class IdsThatChange(Exclusive):
    def __init__(self) -> None:
        self.device = replace(CARD, id=f"fpga-emulator:{next(NUMBERS)}")
        super().__init__()


class NeedsNoLease(Exclusive):
    def load(self, prepared: Any, device: Device, options: Any, lease: Any) -> Any:
        return super().load(prepared, replace(device, exclusive=lease is not None), options, lease)


class TakesAnyLease(Exclusive):
    def load(self, prepared: Any, device: Device, options: Any, lease: Any) -> Any:
        return super().load(prepared, replace(device, exclusive=lease is None), options, lease)


class ReleasesTheLease(Exclusive):
    session = closing(broken.close_with_the_lease)


class LoadsOnce(SoundBackend):
    loaded = False

    def load(self, prepared: Any, device: Device, options: Any, lease: Any) -> Any:
        if self.loaded:
            raise RuntimeError("in use")
        self.loaded = True
        return super().load(prepared, device, options, lease)


class LoadsOnceExclusive(LoadsOnce, Exclusive):
    pass


class ClosesAll(SoundBackend):
    def __init__(self) -> None:
        super().__init__()
        self.sessions: list[Any] = []

    def load(self, prepared: Any, device: Device, options: Any, lease: Any) -> Any:
        inner = SyntheticBackend.load(self, prepared, device, options, lease)
        self.sessions.append(inner)
        return closing(lambda session: [each.close() for each in self.sessions])(inner)


class PlainSample(SyntheticSample):
    def lose_device(self, session: Any) -> None:
        session.inner.lose_device()


class LacksAGpu(PlainSample):
    may_lack = (DeviceKind.GPU,)


class EqualRows(PlainSample):
    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"x": np.ones((rows, 2), np.float32)}


class ExclusivePlainSample(ExclusiveSyntheticSample, PlainSample):
    pass


class PictureSample(PictureConformance, PlainSample):
    preprocessing = STEPS

    def sample_artifact(self, folder: Path) -> ModelArtifact:
        artifact = super().sample_artifact(folder)
        text = artifact.path.read_text().replace("[-1, 2]", "[-1, 2, 3, 3]")
        artifact.path.write_text(text.replace("item_error_if_contains = 13", ""))
        return artifact

    def sample_inputs(self, rows: int) -> Mapping[str, Tensor]:
        return {"x": rows_of_floats(rows, 2, 3, 3)}

    def inputs_with_a_bad_row(self) -> None:
        return None

"""Which samples `--backend NAME` means: entry points of the group `accelserve.conformance`, NAME or NAME.VARIANT."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from accelserve.backends.conformance.sample import Sample

GROUP = "accelserve.conformance"
BACKENDS = "accelserve.backends"


class NoSuchSample(Exception):
    """The message names what there is."""


def samples_of(name: str | None, found: Iterable[EntryPoint] | None = None) -> dict[str, type[Sample]]:
    """The samples of a back end by the names of their entry points; no other plug-in is imported.

    found: of both groups, the environment's by default. Raises NoSuchSample naming the back ends that are installed.
    """
    points = [*entry_points(group=GROUP), *entry_points(group=BACKENDS)] if found is None else list(found)
    samples = {point.name: point for point in points if point.group == GROUP}
    chosen = {each: point for each, point in samples.items() if name and each.partition(".")[0] == name}
    if not chosen:
        wrong = f"no sample of a back end {name!r}" if name else "which back end? Say --backend NAME"
        raise NoSuchSample(f"{wrong}; installed are {_listed(points, samples)}")
    return {each: _load(point) for each, point in chosen.items()}


def _listed(points: Iterable[EntryPoint], samples: Iterable[str]) -> str:
    with_samples = {each.partition(".")[0] for each in samples}
    without = {point.name for point in points if point.group == BACKENDS} - with_samples
    told = f"with samples: {', '.join(sorted(with_samples)) or 'none'}"
    return f"{told}; without (entry points of {GROUP}): {', '.join(sorted(without))}" if without else told


def _load(point: EntryPoint) -> type[Sample]:
    try:
        sample = point.load()
    except Exception as error:
        raise NoSuchSample(f"the sample {point.value} does not load: {type(error).__name__}: {error}") from error
    if not (isinstance(sample, type) and issubclass(sample, Sample)):
        raise NoSuchSample(f"the sample {point.value} is no class that inherits from BackendConformance")
    return sample

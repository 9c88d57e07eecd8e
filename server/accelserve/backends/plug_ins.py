"""Which plug-ins are installed, which of them may run, and what their probes say: in time, or not at all.

Entry points of the group `accelserve.backends` name probes. Those of the accelserve distribution itself run; one of any
other package runs only if it is named, because whatever is installed beside a server is not thereby trusted by it.
"""

import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

from accelserve.backends.base import Offer
from accelserve.devices import DeviceKind
from accelserve.errors import Kind, ScoringError

GROUP = "accelserve.backends"
PROBE_LIMIT_S = 5.0
_OURS = "accelserve"  # the distribution
logger = logging.getLogger("accelserve.backends")


def discover(
    allow: Collection[str] = (), found: Iterable[EntryPoint] | None = None, limit_s: float = PROBE_LIMIT_S
) -> list[Offer]:
    """What the installed back ends offer, the preferred first; one that cannot be used is an unavailable offer.

    allow: names of plug-ins that may run besides our own. found: the entry points, the environment's by default.
    limit_s: for all probes together, each on a thread of its own. Raises ScoringError(INVALID) naming the plug-ins that
    are installed when `allow` names another.
    """
    points = list(entry_points(group=GROUP) if found is None else found)
    _refuse_unknown(allow, points)
    by_name: dict[str, list[EntryPoint]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    chosen, offers = _sorted_out(by_name, allow)
    offers += _probed(chosen, limit_s)
    return sorted(offers, key=lambda offer: (-offer.preference, offer.name))


def unknown_names(allow: Iterable[str], found: Iterable[EntryPoint] | None = None) -> str:
    """What is wrong with the names of plug-ins that may run, in words; "" when all are installed."""
    points = list(entry_points(group=GROUP) if found is None else found)
    unknown = sorted(set(allow) - {point.name for point in points})
    if not unknown:
        return ""
    others = sorted(f"{point.name} (of {_package(point)})" for point in points if not _is_ours(point))
    there = f"installed are {', '.join(others)}" if others else "no plug-in is installed beside accelserve's own"
    ours = ", ".join(sorted(point.name for point in points if _is_ours(point)))
    return f"there is no back end {', '.join(map(repr, unknown))}; {there}; always allowed: {ours}"


def _refuse_unknown(allow: Collection[str], points: Sequence[EntryPoint]) -> None:
    if wrong := unknown_names(allow, points):
        raise ScoringError(Kind.INVALID, f"--backends: {wrong}")


def _sorted_out(
    by_name: Mapping[str, Sequence[EntryPoint]], allow: Collection[str]
) -> tuple[list[EntryPoint], list[Offer]]:
    """The probes that may run, and for each other plug-in an offer that says why it does not."""
    chosen, refused = [], []
    for name, points in by_name.items():
        ours, others = [p for p in points if _is_ours(p)], [p for p in points if not _is_ours(p)]
        packages = " and ".join(sorted(map(_package, others)))
        if ours:
            chosen.append(ours[0])
            if others:
                reason = f"not allowed: {name} is the name of a back end of accelserve; the package has to change it"
                refused.append(_unavailable(f"{name} (of {packages})", reason))
        elif len(others) > 1:
            refused.append(_unavailable(name, f"several packages bring a back end {name}: {packages}; uninstall one"))
        elif name in allow:
            chosen.append(others[0])
        else:
            refused.append(_unavailable(name, f"installed (by {packages}), not allowed: say --backends {name}"))
    return chosen, refused


def _is_ours(point: EntryPoint) -> bool:
    return point.dist is not None and point.dist.name == _OURS


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"


def _probed(points: Sequence[EntryPoint], limit_s: float) -> list[Offer]:
    """Ask all at once; whoever has not answered in time is left to itself, on a thread that ends with the process."""
    asked = [_Question(point) for point in points]
    for question in asked:
        question.start()
    until = time.monotonic() + limit_s
    for question in asked:
        question.join(max(0.0, until - time.monotonic()))
    return [question.answer or _too_slow(question.point, limit_s) for question in asked]


class _Question(threading.Thread):
    """One probe, imported and called; answer: None until there is one."""

    def __init__(self, point: EntryPoint) -> None:
        super().__init__(name=f"probe-{point.name}", daemon=True)
        self.point = point
        self.answer: Offer | None = None

    def run(self) -> None:
        try:
            offer = self.point.load()()
            if wrong := _wrong_with(offer, self.point.name):
                raise TypeError(wrong)
        except BaseException as error:  # SystemExit too: a probe ends nothing but itself
            logger.warning("back end %s: its probe %s failed", self.point.name, self.point.value, exc_info=True)
            reason = f"its probe {self.point.value} failed: {type(error).__name__}: {error}"
            self.answer = _unavailable(self.point.name, reason)
        else:
            self.answer = offer


def _wrong_with(offer: object, name: str) -> str:
    """What makes an answer no offer that can be used, "" if nothing does."""
    if not isinstance(offer, Offer):
        return f"the probe returned {type(offer).__name__}, not an Offer"
    if offer.name != name:
        return f"its offer is named {offer.name!r}, its entry point {name!r}: they must be equal"
    for field, kind in (("device_kinds", DeviceKind), ("formats", str)):
        values: object = getattr(offer, field)
        if not (isinstance(values, frozenset) and all(isinstance(value, kind) for value in values)):
            return f"{field}: want a frozenset of {kind.__name__}, got {values!r}"
    if not offer.unavailable and not all(part for part in offer.backend.partition(":")):
        return f'backend: want "module:Class", got {offer.backend!r}'
    return ""


def _too_slow(point: EntryPoint, limit_s: float) -> Offer:
    logger.warning("back end %s: its probe %s did not answer within %g s", point.name, point.value, limit_s)
    return _unavailable(point.name, f"its probe {point.value} did not answer within {limit_s:g} s")


def _unavailable(name: str, reason: str) -> Offer:
    return Offer(name, frozenset(), frozenset(), "", unavailable=reason)

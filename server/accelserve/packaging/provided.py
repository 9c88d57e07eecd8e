"""Which packages the server itself is made of: those that a script cannot choose."""

import re
from importlib.metadata import PackageNotFoundError, requires

_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def packages_in_image(extras: frozenset[str] = frozenset()) -> frozenset[str]:
    """By pip's names: accelserve, all that it needs, and what those need; of the extras of accelserve these too.

    Read from what is installed here, whose names are those of the image, whatever its versions are.
    """
    found: set[str] = set()
    waiting = [("accelserve", extras | {"cpu"})]
    while waiting:
        name, wanted = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting += [(needed, frozenset()) for needed in _needed(name, frozenset(wanted))]
    return frozenset(found)


def _needed(name: str, extras: frozenset[str]) -> list[str]:
    try:
        lines = requires(name) or []
    except PackageNotFoundError:
        return []
    kept = (line for line in lines if not (extra := _EXTRA.search(line)) or extra[1] in extras)
    return [re.sub(r"[-_.]+", "-", found[1]).lower() for line in kept if (found := _NAME.match(line))]


def requirements_of_extra(extra: str) -> tuple[str, ...]:
    """What accelserve's own extra is made of, as pip reads it."""
    lines = requires("accelserve") or []
    return tuple(
        line.partition(";")[0].strip() for line in lines if (found := _EXTRA.search(line)) and found[1] == extra
    )

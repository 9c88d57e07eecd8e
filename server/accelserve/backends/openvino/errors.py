"""OpenVINO's exceptions in the project's words: whose fault a failed run is, and one readable line of reason."""

import re

from accelserve.errors import Kind

_LOST = re.compile(
    r"device (?:is )?(?:lost|removed|hung|offline)|DMA (?:error|timeout)|No such device|ENODEV|Input/output error"
    r"|timed? ?out waiting for (?:the )?(?:FPGA|DLA|device)|(?:mmd|MMD|OPAE).*(?:fail|error)",
    re.IGNORECASE,
)
_MEMORY = re.compile(r"out of (?:device )?memory|bad_alloc|failed to allocate|not enough (?:DDR|memory)", re.IGNORECASE)
_SHAPE = re.compile(
    r"incompatible|shapes? (?:is|are|do|does)|dimensions? (?:mismatch|do not|must|is)|broadcast|out of (?:bounds|range)"
    r"|cannot be reshaped|mismatch in",
    re.IGNORECASE,
)
_NOISE = re.compile(r"Exception from \S+:\d+:|Check '.*?' failed at \S+:\d+:|FrontEnd API failed with \w+:")
_LONGEST = 400


def kind_of(error: Exception) -> Kind:
    """INVALID (the input is at fault), DEVICE_LOST, DEVICE_MEMORY or INTERNAL, from the message."""
    text = str(error)
    if _LOST.search(text):
        return Kind.DEVICE_LOST
    if _MEMORY.search(text) or isinstance(error, MemoryError):
        return Kind.DEVICE_MEMORY
    if _SHAPE.search(text) or isinstance(error, TypeError | ValueError):
        return Kind.INVALID
    return Kind.INTERNAL


def one_line(error: Exception) -> str:
    """The reason without source paths and line breaks, cut to a readable length."""
    text = " ".join(_NOISE.sub(" ", str(error)).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"

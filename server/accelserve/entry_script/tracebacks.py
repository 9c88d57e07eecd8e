"""What a script raised, as text for the log."""

import os
import traceback
from types import TracebackType

_OURS = os.path.dirname(__file__)
_MOST_CHARACTERS = 16_384  # of which the end, where the error is, gets most
_BEGINNING = 4_096
_MOST_OF_A_MESSAGE = 1_000


def told(error: BaseException) -> str:
    """The traceback from the script's own lines on; without half characters, and of a long one both ends."""
    try:
        text = "".join(traceback.format_exception(type(error), error, _scripts_part(error.__traceback__)))
    except BaseException as failure:  # an exception whose own text raises
        text = f"{type(error).__name__}, which cannot be told: {type(failure).__name__}\n"
    if len(text) > _MOST_CHARACTERS:
        text = f"{text[:_BEGINNING]}\n...\n{text[_BEGINNING - _MOST_CHARACTERS :]}"
    return whole(text)


def said(error: BaseException) -> str:
    """What it says of itself, briefly."""
    try:
        text = str(error)
    except BaseException:  # the script's own class
        text = "(it cannot be told)"
    return whole(f"{type(error).__name__}: {brief(text)}")


def brief(text: str) -> str:
    """The beginning of what may be as long as a script likes."""
    if len(text) > _MOST_OF_A_MESSAGE:
        text = f"{text[:_MOST_OF_A_MESSAGE]} ... ({len(text)} characters)"
    return whole(text)


def whole(text: str) -> str:
    """Without half characters, which no frame carries."""
    return text.encode("utf-8", "backslashreplace").decode()


def _scripts_part(trace: TracebackType | None) -> TracebackType | None:
    part = trace
    while part is not None and os.path.dirname(part.tb_frame.f_code.co_filename) == _OURS:
        part = part.tb_next
    return part or trace

"""An answer's scores, ranked; what it is where it is no vector of scores."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelserve.config_sources import ConfigError
from accelserve.score_files.results import Place

_LEAST = 2  # one number alone is an answer, and no choice among classes
_MOST_DEPTH = 64  # of lists and objects in each other, as numpy's dimensions; more is told as text


def ranked(answer: Any, top: int, labels: Sequence[str] = ()) -> tuple[Place, ...] | None:
    """The best `top` classes of one file's answer, best first; of equal scores the lower index first.

    The answer is a list of numbers of which one at least is a fraction, such a list alone in a list (a batch of one),
    the only one among an object's values, or a list that the server has ranked already. None for all else.
    """
    if (places := _ranked_already(answer, labels)) is not None:
        return places[:top]
    scores = _scores_of(answer)
    if scores is None:
        return None
    order = sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:top]
    return tuple(Place(index, _label(labels, index), scores[index]) for index in order)


def classes_in(answer: Any) -> int | None:
    """Of how many classes the answer has scores; None where it does not show."""
    scores = _scores_of(answer)
    return None if scores is None else len(scores)


def _ranked_already(answer: Any, labels: Sequence[str]) -> tuple[Place, ...] | None:
    if not isinstance(answer, list) or not answer or not all(_is_place(item) for item in answer):
        return None
    return tuple(
        Place(item["index"], _label(labels, item["index"]) or item.get("label"), _number(item["score"]))
        for item in answer
    )


def _is_place(item: Any) -> bool:
    return (
        isinstance(item, dict)
        and {"index", "score"} <= item.keys() <= {"index", "label", "score"}
        and type(item["index"]) is int
        and (item["score"] is None or isinstance(item["score"], int | float))
    )


def _scores_of(answer: Any) -> list[float] | None:
    if isinstance(answer, Mapping):
        vectors = [scores for value in answer.values() if (scores := _scores_of(value)) is not None]
        return vectors[0] if len(vectors) == 1 else None
    if not isinstance(answer, list):
        return None
    if len(answer) == 1:
        return _scores_of(answer[0])
    numbers = all(value is None or type(value) in (int, float) for value in answer)
    if len(answer) < _LEAST or not numbers or not any(type(value) is float for value in answer):
        return None
    return [_number(value) for value in answer]


def _number(value: Any) -> float:
    """What is no number ranks last; JSON says null for it. A whole number too large for a float is infinite."""
    if value is None or value != value:
        return -math.inf
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _label(labels: Sequence[str], index: int) -> str | None:
    return labels[index] if 0 <= index < len(labels) else None


def plain_answer(data: bytes) -> Any:
    """What an HTTP answer says: its JSON; JSON in a JSON string, as many entry scripts write it; else its text."""
    text = data.decode("utf-8", "replace")
    answer = _json_or_text(text)
    return _json_or_text(answer) if isinstance(answer, str) and answer[:1] in ("[", "{") else answer


def _json_or_text(text: str) -> Any:
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return answer if _depth_is_bounded(answer) else text


def _depth_is_bounded(answer: Any) -> bool:
    """Whoever looks through it or writes it again does so by recursion."""
    level = [[answer]]
    for _ in range(_MOST_DEPTH + 1):
        level = [_values(inner) for values in level for inner in values if isinstance(inner, dict | list)]
    return not level


def _values(nested: dict[str, Any] | list[Any]) -> list[Any]:
    return list(nested.values()) if isinstance(nested, dict) else nested


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line, as in a model's own file; or a JSON array of strings. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = json.loads(text) if text.lstrip().startswith("[") else text.rstrip("\r\n").split("\n")
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError([f"--labels {path}: {getattr(error, 'strerror', None) or error}"]) from error
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise ConfigError([f"--labels {path}: want one label a line, or a JSON array of strings"])
    return tuple(line.rstrip("\r") for line in lines)

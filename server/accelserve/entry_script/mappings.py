"""The mappings of Flask's request and response, as far as scripts use them."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_ABSENT = object()
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2
_VALUE = re.compile(r"[^\r\n\0\u0100-\U0010ffff]*")


class Headers:
    """Header fields in order; names are found whatever their case.

    As in werkzeug, iterating gives pairs, and `dict(headers)` works. What comes up twice is joined by a comma, as a
    WSGI server does.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._pairs = list(pairs)

    def getlist(self, name: str) -> list[str]:
        wanted = name.lower()
        return [value for known, value in self._pairs if known.lower() == wanted]

    get_all = getlist

    def get(self, name: str, default: Any = None, type: Callable[[str], Any] | None = None) -> Any:
        values = self.getlist(name)
        return _converted(",".join(values), default, type) if values else default

    def __getitem__(self, name: str) -> str:
        values = self.getlist(name)
        if not values:
            raise KeyError(name)
        return ",".join(values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.getlist(name))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(list(self._pairs))

    def __len__(self) -> int:
        return len(self._pairs)

    def keys(self) -> list[str]:
        return [name for name, _ in self._pairs]

    def values(self) -> list[str]:
        return [value for _, value in self._pairs]

    def items(self) -> list[tuple[str, str]]:
        return list(self._pairs)

    def add(self, name: str, value: object) -> None:
        """Raises ValueError for what would end a header line."""
        self._pairs.append((_field_name(name), _field_value(name, value)))

    add_header = add

    def remove(self, name: str) -> None:
        wanted = name.lower()
        self._pairs = [pair for pair in self._pairs if pair[0].lower() != wanted]

    __delitem__ = remove

    def __setitem__(self, name: str, value: object) -> None:
        checked = (_field_name(name), _field_value(name, value))
        self.remove(name)
        self._pairs.append(checked)

    set = __setitem__

    def setdefault(self, name: str, value: object) -> str:
        if name not in self:
            self[name] = value
        return self[name]

    def update(self, other: Any = (), **more: object) -> None:
        pairs = other.items() if hasattr(other, "items") else other
        for name, value in (*pairs, *more.items()):
            self[name] = value

    extend = update

    def __repr__(self) -> str:
        """Without keys, since what a script prints is logged."""
        shown = [(name, "..." if name.lower() == "authorization" else value) for name, value in self._pairs]
        return f"Headers({shown!r})"


class MultiDict(dict[str, Any]):
    """The first value of each key as a dict; the others through `getlist`."""

    def __init__(self, pairs: Iterable[tuple[str, Any]] = ()) -> None:
        self._lists: dict[str, list[Any]] = {}
        for key, value in pairs:
            self._lists.setdefault(key, []).append(value)
        super().__init__((key, values[0]) for key, values in self._lists.items())

    def get(self, key: str, default: Any = None, type: Callable[[Any], Any] | None = None) -> Any:
        found = super().get(key, _ABSENT)
        return default if found is _ABSENT else _converted(found, default, type)

    def getlist(self, key: str, type: Callable[[Any], Any] | None = None) -> list[Any]:
        values = self._lists.get(key, [])
        converted = (_converted(value, _ABSENT, type) for value in values)
        return [value for value in converted if value is not _ABSENT]

    def lists(self) -> Iterator[tuple[str, list[Any]]]:
        return ((key, list(values)) for key, values in self._lists.items())

    def items(self, multi: bool = False) -> Any:
        if multi:
            return ((key, value) for key, values in self._lists.items() for value in values)
        return super().items()

    def to_dict(self, flat: bool = True) -> dict[str, Any]:
        return dict(self) if flat else dict(self.lists())


def _converted(value: Any, default: Any, type: Callable[[Any], Any] | None) -> Any:
    """As werkzeug: what cannot be converted is not there."""
    if type is None:
        return value
    try:
        return type(value)
    except (ValueError, TypeError):
        return default


def _field_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"not the name of a header: {name!r}")
    return name


def _field_value(name: str, value: object) -> str:
    text = value if isinstance(value, str) else str(value)
    if _VALUE.fullmatch(text) is None:
        raise ValueError(f"the header {name} has a line end or characters beyond latin-1 in its value")
    return text

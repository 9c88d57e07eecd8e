"""A conda environment file (myenv.yml), read with the line of every entry; nothing is decided here."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from accelserve.config_sources import ConfigError

_MOST_BYTES = 2**20
_MOST_DEPTH = 20
_KEYS = ("name", "channels", "dependencies", "prefix", "variables")
_NAME = re.compile(r"(?:(?P<channel>[^\s:]+)::)?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?P<rest>.*)", re.DOTALL)
_PIP_NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?P<extras>\[[^\]]*\])?\s*(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Wanted:
    """One entry of the dependencies. name: in lower case, with - for _ and dots as they are.

    version: pip's words (`==1.12.*`), "" for any. text: the entry as it stands. of_pip: whether it is pip's list's.
    rest: a pip entry with extras, a marker or an address, which is kept as it is; else "".
    """

    name: str
    version: str
    text: str
    line: int
    of_pip: bool = False
    rest: str = ""


@dataclass(frozen=True, slots=True)
class CondaFile:
    """remarks: (line, what was left out of it and why)."""

    channels: tuple[tuple[int, str], ...]
    wanted: tuple[Wanted, ...]
    remarks: tuple[tuple[int, str], ...] = ()


def read_conda_file(path: Path) -> CondaFile:
    """Raises ConfigError with every problem, each with its line and a remedy."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"--conda {path}: {error.strerror}"]) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not a text in UTF-8: {error.reason} at byte {error.start}"]) from error
    return parse_conda_file(text, str(path))


def parse_conda_file(text: str, source: str) -> CondaFile:
    """source: for messages. Raises ConfigError."""
    if len(text) > _MOST_BYTES:
        raise ConfigError([f"{source}: {len(text)} characters are no environment file; want at most {_MOST_BYTES}"])
    reader = _Reader(source)
    try:
        _check_shape(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError([f"{source}, line {line}: not YAML: {error.problem or error}"]) from error
    except yaml.YAMLError as error:  # characters that YAML does not know
        raise ConfigError([f"{source}: not YAML: {error}"]) from error
    found = reader.file(root)
    if reader.problems:
        raise ConfigError(reader.problems)
    return found


def _check_shape(text: str) -> None:
    """Anchors let a small file say a huge one, and nesting exhausts the parser; neither has a use here."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias (*name); write the entry out", problem_mark=event.start_mark)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=event.start_mark)


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self.problems: list[str] = []
        self._remarks: list[tuple[int, str]] = []

    def file(self, root: Any) -> CondaFile:
        parts = self._mapping(root)
        for key, (line, _) in parts.items():
            if key not in _KEYS:
                self._problem(line, f"unknown key {key!r}; known are {', '.join(_KEYS)}")
        channels = tuple((line, text) for line, text in self._texts(parts, "channels"))
        wanted = tuple(self._wanted(parts))
        if "dependencies" not in parts and not self.problems:
            self._problem(1, "no dependencies; want a list `dependencies:` as conda writes it")
        if "variables" in parts:
            self._remarks.append(
                (parts["variables"][0], "variables are not taken over: set them with ENV in the image")
            )
        return CondaFile(channels, wanted, tuple(self._remarks))

    def _problem(self, line: int, text: str) -> None:
        self.problems.append(f"{self._source}, line {line}: {text}")

    def _mapping(self, node: Any) -> dict[str, tuple[int, Any]]:
        """Key -> its line and its node."""
        if node is None or not isinstance(node, yaml.MappingNode):
            self._problem(_line(node), "want `name:`, `channels:` and `dependencies:`, as conda writes them")
            return {}
        parts: dict[str, tuple[int, Any]] = {}
        for key, value in node.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else ""
            if text in parts:
                self._problem(_line(key), f"{text!r} is there twice, also in line {parts[text][0]}; join the two")
            parts[text] = (_line(key), value)
        return parts

    def _items(self, parts: Mapping[str, tuple[int, Any]], key: str) -> list[Any]:
        if key not in parts:
            return []
        line, node = parts[key]
        if isinstance(node, yaml.ScalarNode) and not node.value:
            return []  # `channels:` with nothing behind it
        if not isinstance(node, yaml.SequenceNode):
            self._problem(line, f"{key}: want a list, an entry a line, each with `- ` before it")
            return []
        return list(node.value)

    def _texts(self, parts: Mapping[str, tuple[int, Any]], key: str) -> Iterator[tuple[int, str]]:
        for item in self._items(parts, key):
            if _is_word(item):
                yield _line(item), item.value.strip()
            else:
                self._problem(_line(item), f"{key}: want a word or `name=version`, got {_kind(item)}")

    def _wanted(self, parts: Mapping[str, tuple[int, Any]]) -> Iterator[Wanted]:
        for item in self._items(parts, "dependencies"):
            if isinstance(item, yaml.MappingNode):
                yield from self._of_pip(item)
            elif _is_word(item):
                yield from self._of_conda(_line(item), item.value.strip())
            else:
                self._problem(_line(item), f"dependencies: want `name` or `name=version`, got {_kind(item)}")

    def _of_pip(self, item: Any) -> Iterator[Wanted]:
        parts = self._mapping(item)
        for key, (line, _) in parts.items():
            if key != "pip":
                self._problem(line, f"{key!r}: only `pip:` can have a list of its own; want `- {key}=VERSION`")
        for line, text in self._texts(parts, "pip"):
            if text.startswith("-"):
                self._problem(line, f"pip: {text!r} is an option; write the packages themselves into the list")
                continue
            found = _PIP_NAME.fullmatch(text)
            if not found:
                self._problem(line, f"pip: {text!r}: want `name==version`")
                continue
            yield _pip_wanted(found, text, line)

    def _of_conda(self, line: int, text: str) -> Iterator[Wanted]:
        found = _NAME.fullmatch(text)
        if not found:
            self._problem(line, f"{text!r}: want `name`, `name=version` or `name>=version`")
            return
        if found["channel"]:
            self._remarks.append((line, f"{text}: the channel {found['channel']} is left out; the package is PyPI's"))
        version, remark = _conda_version(found["rest"].strip())
        if version is None:
            self._problem(line, f"{text!r}: {remark}")
            return
        if remark:
            self._remarks.append((line, f"{text}: {remark}"))
        yield Wanted(_normal(found["name"]), version, text, line)


_ONE = re.compile(r"(?P<sign>==|>=|<=|!=|~=|>|<|=)?\s*(?P<number>[0-9][A-Za-z0-9._+!*-]*)")


def _conda_version(text: str) -> tuple[str | None, str]:
    """Conda's version -> pip's, and a remark; None for one that cannot be read, with the reason.

    A single `=` is conda's "begins with"; what stands behind a second one is a build, which PyPI does not have.
    """
    if not text or text == "*":
        return "", ""
    if "|" in text or "[" in text:
        return None, "want a version that pip can read, such as =1.12, ==1.12.0 or >=1.12,<2"
    remark = ""
    bare = text.lstrip("=").strip()
    if (text.startswith("=") and re.search(r"[\s=]", bare)) or (text[0] not in "=<>!~" and re.search(r"[\s=]", text)):
        number, _, build = re.sub(r"\s+", "=", bare).partition("=")
        prefix = "==" if text.startswith("==") else "="
        text, remark = f"{prefix}{number}", f"the build {build.strip('=')} is left out: PyPI has none"
    parts = [_ONE.fullmatch(part.strip()) for part in text.split(",")]
    if not all(parts):
        return None, "want a version that pip can read, such as =1.12, ==1.12.0 or >=1.12,<2"
    return ",".join(_pip_version(part["sign"] or "=", part["number"]) for part in parts if part), remark


def _pip_version(sign: str, number: str) -> str:
    if sign != "=":
        return f"{sign}{number}"
    return f"=={number}" if number.endswith("*") else f"=={number}.*"


def _pip_wanted(found: "re.Match[str]", text: str, line: int) -> Wanted:
    rest = found["rest"].strip()
    plain = not found["extras"] and re.fullmatch(r"[=<>!~][^;@#]*", rest or "=")
    return Wanted(_normal(found["name"]), rest if plain else "", text, line, True, "" if plain else text)


def _normal(name: str) -> str:
    return re.sub(r"[-_]+", "-", name).lower()


def _line(node: Any) -> int:
    return node.start_mark.line + 1 if node is not None else 1


def _is_word(node: Any) -> bool:
    """In one line: the next would be one of requirements.txt, and may be an option.

    Lines as pip splits them, by str.splitlines(), which knows more ends than a newline; none of them is printable.
    """
    text = node.value.strip() if isinstance(node, yaml.ScalarNode) else ""
    return len(text.splitlines()) == 1 and text.isprintable()


def _kind(node: Any) -> str:
    if isinstance(node, yaml.ScalarNode) and (text := node.value.strip()):
        return "several lines" if len(text.splitlines()) > 1 else f"characters that nobody sees, {text!r}"
    words = {yaml.MappingNode: "`key: value`", yaml.SequenceNode: "a list in the list", yaml.ScalarNode: "nothing"}
    return next((word for kind, word in words.items() if isinstance(node, kind)), "something else")

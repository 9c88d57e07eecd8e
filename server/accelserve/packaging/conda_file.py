"""A conda environment file (myenv.yml), read with the line of every entry; nothing is decided here."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from accelserve.config_sources import ConfigError
from accelserve.packaging.conda_versions import pip_version
from accelserve.small_files import read_small

_MOST_BYTES = 2**20
_MOST_DEPTH = 20
_KEYS = ("name", "channels", "dependencies", "prefix", "variables")
_NAME = re.compile(r"(?:(?P<channel>[^\s:]+)::)?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?P<rest>.*)", re.DOTALL)
_PIP_NAME = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?P<extras>\[[^\]]*\])?\s*(?P<rest>.*)", re.DOTALL)
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_EGG = re.compile(r"#(?:.*&)?egg=([A-Za-z0-9][A-Za-z0-9._-]*)")
_OWN_FILE = re.compile(r"[^@;]*(/|\.(whl|zip|tar\.gz)\s*$)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One entry of the dependencies. name: in lower case, with - for _ and dots as they are; "" of a bare address.

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
        data = read_small(path, _MOST_BYTES)
    except OSError as error:
        raise ConfigError([f"--conda {path}: {error.strerror}"]) from error
    if len(data) > _MOST_BYTES:
        raise ConfigError([f"{path}: more than {_MOST_BYTES // 2**10} KiB are no environment file"])
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not a text in UTF-8: {error.reason} at byte {error.start}"]) from error
    return parse_conda_file(text, str(path))


def parse_conda_file(text: str, source: str) -> CondaFile:
    """source: for messages. Raises ConfigError."""
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
            if re.search(r"(^|\s)-", text):
                self._problem(line, f"pip: {text!r} is or has an option; write the packages themselves into the list")
                continue
            if _ADDRESS.match(text):
                egg = _EGG.search(text)
                yield Wanted(_normal(egg[1]) if egg else "", "", text, line, True, text)
                continue
            found = _PIP_NAME.fullmatch(text)
            if not found or _OWN_FILE.match(text):
                self._problem(
                    line, f"pip: {text!r}: want `name==version` or an address: the image has no file of yours"
                )
                continue
            yield _pip_wanted(found, text, line)

    def _of_conda(self, line: int, text: str) -> Iterator[Wanted]:
        found = _NAME.fullmatch(text)
        if not found:
            self._problem(line, f"{text!r}: want `name`, `name=version` or `name>=version`")
            return
        if found["channel"]:
            self._remarks.append((line, f"{text}: the channel {found['channel']} is left out; the package is PyPI's"))
        version, remark = pip_version(found["rest"].strip())
        if version is None:
            self._problem(line, f"{text!r}: {remark}")
            return
        if remark:
            self._remarks.append((line, f"{text}: {remark}"))
        yield Wanted(_normal(found["name"]), version, text, line)


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

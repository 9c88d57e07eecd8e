"""The two keys of a service: where they lie, and whether what a client sends is one of them.

The file is JSON, `{"primary": KEY, "secondary": KEY}`, and its owner's alone to read. Two keys, so that one can be
replaced while clients use the other.
"""

import json
import re
import secrets
import stat
import string
from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path
from typing import Literal

from accelserve.durable_files import locked, write_whole
from accelserve.errors import Kind, ScoringError
from accelserve.small_files import read_small

KeyName = Literal["primary", "secondary"]

_NAMES: tuple[KeyName, ...] = ("primary", "secondary")
_ALPHABET = string.ascii_letters + string.digits
_NEW_CHARACTERS = 43  # of 62: 256 bits
_LEAST_CHARACTERS = 16
_MOST_CHARACTERS = 512
# What an HTTP header and gRPC metadata carry unchanged; no space, which ends the word "Bearer".
_KEY = re.compile(r"[\x21-\x7e]{16,512}")
_WANTED = f"{_LEAST_CHARACTERS} to {_MOST_CHARACTERS} visible ASCII characters without a space"
_BEARER = re.compile(r"bearer(?:[ \t]+|$)", re.IGNORECASE)
_MOST_FILE_BYTES = 16384
_MOST_SENT = _MOST_CHARACTERS + 64  # characters of a header that are looked at: a key, its scheme and blanks
_OTHERS = stat.S_IROTH | stat.S_IWOTH


class KeyFileError(Exception):
    """A key file that cannot be used. The text names file and remedy, and tells nothing of what is in it."""


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """A service's keys. Shown only by who asks for `primary` and `secondary`."""

    primary: str
    secondary: str

    def __repr__(self) -> str:
        return "Keys(primary=..., secondary=...)"


class Keyring:
    """The keys in force. What it keeps are digests: no key can be read out of it.

    version: another number after each change. internal: a key of the server's own, for its own processes.
    """

    def __init__(self, keys: Keys, internal: str = "") -> None:
        self._internal = _digests((internal,) if internal else ())
        self.version = 0
        self._digests: tuple[bytes, ...] = ()
        self.replace(keys)

    def replace(self, keys: Keys) -> None:
        """From now on these are in force, for whoever asks on any thread."""
        self._digests = (*digests_of(keys), *self._internal)
        self.version += 1

    def accepts(self, authorization: str | None) -> bool:
        """Whether a header's value holds a key in force; the time it takes does not tell how much of one it holds.

        `Bearer KEY` with the scheme in any case, or the bare key: the accel clients of Azure ML send each of them, and
        `Bearer ` with nothing behind it when they have no key.
        """
        if authorization is None or len(authorization) > _MOST_SENT:
            return False
        scheme = _BEARER.match(authorization)
        sent = (authorization[scheme.end() :] if scheme else authorization).strip(" \t")
        digest = sha256(sent.encode("utf-8", "replace")).digest()
        found = False
        for known in self._digests:  # all of them, whichever fits
            found |= compare_digest(digest, known)
        return found


def digests_of(keys: Keys) -> tuple[bytes, ...]:
    """What may be kept of them."""
    return _digests((keys.primary, keys.secondary))


def _digests(keys: Iterable[str]) -> tuple[bytes, ...]:
    return tuple([sha256(key.encode()).digest() for key in keys])


def new_key() -> str:
    """43 letters and digits (256 bits): a word that needs no quotes in a shell, a URL, JSON or YAML."""
    return "".join([secrets.choice(_ALPHABET) for _ in range(_NEW_CHARACTERS)])


def new_keys() -> Keys:
    return Keys(new_key(), new_key())


def read_keys(path: Path) -> Keys:
    """Raises KeyFileError."""
    try:
        content = read_small(path, _MOST_FILE_BYTES)
    except OSError as error:
        raise KeyFileError(f"key file {path}: {error.strerror}") from None
    return parse_keys(content, path)


def parse_keys(content: bytes, path: Path) -> Keys:
    """path: for the error. Raises KeyFileError."""
    wanted = f'want JSON, {{"primary": KEY, "secondary": KEY}}, each key {_WANTED}'
    try:
        found = json.loads(content) if len(content) <= _MOST_FILE_BYTES else None
    except (ValueError, RecursionError):  # neither its text, which quotes the file, nor what it was raised from
        found = None
    if not isinstance(found, dict) or found.keys() != set(_NAMES):
        raise KeyFileError(f"key file {path}: {wanted}")
    for name in _NAMES:
        if not isinstance(found[name], str) or not _KEY.fullmatch(found[name]):
            raise KeyFileError(f"key file {path}: {name}: {wanted}")
    return Keys(**found)


def write_keys(path: Path, keys: Keys) -> None:
    """Replace the file, whole or not at all, readable and writable by its owner alone. Raises OSError."""
    content = json.dumps({name: getattr(keys, name) for name in _NAMES}, indent=2)
    write_whole(path, f"{content}\n".encode(), mode=0o600)


def write_new_keys(path: Path) -> Keys:
    """Raises OSError."""
    keys = new_keys()
    write_keys(path, keys)
    return keys


def replace_key(path: Path, name: KeyName, key: str | None = None) -> Keys:
    """Change one key of the file and leave the other; None makes a new one. Returns both.

    Waits for others who replace a key there. Raises ScoringError(INVALID) for a key that cannot be one, KeyFileError
    for the file, OSError.
    """
    if key is not None and not _KEY.fullmatch(key):
        raise ScoringError(Kind.INVALID, f"a key is {_WANTED}")
    with locked(path.with_name(f".{path.name}.lock")):
        before = read_keys(path)
        after = (
            replace(before, primary=key or new_key())
            if name == "primary"
            else replace(before, secondary=key or new_key())
        )
        write_keys(path, after)
    return after


def readable_by_others(path: Path) -> bool:
    """Whether every user of this machine may read or write it: a group is somebody's choice, the whole world is not."""
    try:
        return bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False

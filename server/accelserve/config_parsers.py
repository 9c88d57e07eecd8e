"""What an option's text means: each parser gives the value, or raises ValueError with what is wanted."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelserve.config import ALL_VERSIONS, VersionPolicy
from accelserve.devices import DEVICE_FORMS, DeviceKind, parse_device_request
from accelserve.errors import ScoringError

_YEAR_S = 365 * 86400.0
_MOST_MESSAGE_BYTES = 2**31 - 1
_VERSIONS = 10**18  # as many digits as a version folder's name may have


def _whole(least: int, most: int, wanted: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:  # also for thousands of digits, which Python refuses to read
            number = least - 1
        if not least <= number <= most:
            raise ValueError(f"want {wanted}")
        return number

    return parse


def parse_seconds(text: str) -> float:
    """Up to a year; 0 is allowed."""
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= _YEAR_S:
        raise ValueError("want a number of seconds from 0 to 31536000 (a year)")
    return number


def parse_patience(text: str) -> float:
    """Seconds that are never 0: nobody can be waited for without waiting."""
    seconds = parse_seconds(text)
    if not seconds:
        raise ValueError("want a number of seconds above 0")
    return seconds


def parse_bytes(text: str) -> int:
    """`64MiB`, `64M`, `67108864` -> bytes. Units are powers of 1024."""
    found = re.fullmatch(r"([0-9]{1,15})\s*([kmg]?)(i?b)?", str(text).strip(), re.IGNORECASE)
    if not found or not (number := int(found[1])):
        raise ValueError("want a number of bytes above 0, such as 67108864 or 64MiB")
    return number * {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}[found[2].lower()]


def parse_message_bytes(text: str) -> int:
    """As `parse_bytes`, within what gRPC can count."""
    number = parse_bytes(text)
    if number > _MOST_MESSAGE_BYTES:
        raise ValueError("want at most 2147483647 bytes, which is all that gRPC can count; leave it out for no limit")
    return number


def parse_device(text: str) -> str:
    """A device request that is well-formed; whether the device is here is the back ends' to say."""
    try:
        return str(parse_device_request(text))
    except ScoringError as error:
        raise ValueError(f"want {DEVICE_FORMS}") from error


def parse_jpeg_decoder(text: str) -> str:
    """`cpu`, or one GPU, which is then required; `gpu` is the first."""
    try:
        request = parse_device_request(text)
    except ScoringError:
        request = None
    one_gpu = request is not None and request.kind is DeviceKind.GPU and len(request.ids) <= 1
    if request is None or not (one_gpu or request.kind is DeviceKind.CPU):
        raise ValueError("want cpu, gpu or gpu:N")
    return str(request)


def parse_host(text: str) -> str:
    """What a socket can be asked to look up; whether it is found is seen when it listens."""
    try:
        fits = bool(text.encode("idna")) and not re.search(r"[\s\0]", text)  # as a socket will encode it
    except UnicodeError:
        fits = False
    if not fits:
        raise ValueError("want an address or a host's name, such as 127.0.0.1 or 0.0.0.0")
    return text


def parse_service(text: str) -> str:
    """What can stand in a path and in gRPC metadata as it is."""
    if not re.fullmatch(r"[A-Za-z0-9._-]{0,255}", text):
        raise ValueError("want letters, digits, . _ -")
    return text


def parse_flag(text: str) -> bool:
    """1 true yes on, or 0 false no off and nothing at all."""
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off", ""):
        return False
    raise ValueError("want true or false")


def one_of(*words: str) -> Callable[[str], str]:
    """A parser of these words, in whatever case."""

    def parse(text: str) -> str:
        found = {word.lower(): word for word in words}.get(text.lower())
        if found is None:
            raise ValueError(f"want one of {', '.join(words)}")
        return found

    return parse


def parse_versions(value: Any) -> VersionPolicy:
    """`latest`, `latest:2`, `all`, or a list of numbers (also a text of one number)."""
    numbers = [int(value)] if _is_version(value) else value
    if isinstance(numbers, list) and numbers and all(type(n) is int and 0 <= n < _VERSIONS for n in numbers):
        return VersionPolicy(specific=tuple(sorted(set(numbers))))
    if value == "all":
        return ALL_VERSIONS
    word, colon, count = value.partition(":") if isinstance(value, str) else ("", "", "")
    if word == "latest" and (not colon or (_is_version(count) and int(count))):
        return VersionPolicy(int(count) if colon else 1)
    raise ValueError('want "latest", "latest:N", "all" or a list of version numbers such as [1, 3]')


def _is_version(text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch("[0-9]{1,18}", text) is not None


def _path(wanted: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        try:
            if text and "\0" not in text:
                return str(Path(text).expanduser())
        except RuntimeError:  # ~ of nobody
            pass
        raise ValueError(f"want {wanted}")

    return parse


def parse_model_files(text: str) -> tuple[tuple[str, str], ...]:
    """`a=/files/a b=/files/b`, quoted as in a shell -> (name, path) of each."""
    pairs = [word.partition("=") for word in shlex.split(text)]
    if not all(name and path for name, _, path in pairs):
        raise ValueError("want NAME=PATH, for example mnist=models/mnist")
    return tuple([(name, parse_file(path)) for name, _, path in pairs])


def parse_backends(text: str) -> tuple[str, ...]:
    """`npu,tiny`: names of plug-ins; "" is none."""
    names = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
    if not all(re.fullmatch(r"[^\s,=:\[\]]+", name) for name in names):
        raise ValueError("want names of installed plug-ins, such as npu,other")
    return tuple(dict.fromkeys(names))


parse_folder = _path("a folder")
parse_file = _path("a file")
parse_port = _whole(0, 65535, "a port from 0 to 65535 (0 takes a free one)")
parse_threads = _whole(1, 1024, "a number of threads from 1 to 1024")
parse_instances = _whole(1, 64, "a number of instances from 1 to 64")
parse_attempts = _whole(0, 1000, "a number of attempts from 0 to 1000")
parse_decode_threads = _whole(0, 1024, "a number of threads from 1 to 1024, or 0 for the default")
parse_workers = _whole(1, 256, "a number of workers from 1 to 256")
parse_queue_ms = _whole(1, 24 * 3600 * 1000, "a number of milliseconds from 1 to 86400000 (a day)")
parse_concurrent = _whole(1, 10**6, "a number of requests from 1 to 1000000")
parse_pixels = _whole(1, 10**12, "a number of pixels above 0, such as 100000000")

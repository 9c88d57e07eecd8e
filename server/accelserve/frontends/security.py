"""Keys and TLS as a configuration asks for them: read at the start, and followed while the server runs.

The files are read again every second and compared by content, so that it does not matter how they were replaced: by
a rename, in place, or as Kubernetes does it, by links.
"""

import asyncio
import ipaddress
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from accelserve.config import ServerConfig
from accelserve.config_sources import ConfigError
from accelserve.frontends.guard import OPEN_GRPC, OPEN_HTTP, Guard
from accelserve.frontends.tls import (
    Identity,
    Tls,
    TlsError,
    TlsFiles,
    key_problem,
    read_contents,
    read_identity,
    validity_problem,
)
from accelserve.keys import KeyFileError, Keyring, Keys, digests_of, read_keys, readable_by_others
from accelserve.observability.series import Gauge

_LOOK_S = 1.0
_LOG = logging.getLogger("accelserve.security")
Read = TypeVar("Read")


@dataclass(frozen=True, slots=True)
class Security:
    """http_guard, grpc_guard: None when everybody may ask. tls: None for plain text. followed: the files of both."""

    http_guard: Guard | None = None
    grpc_guard: Guard | None = None
    tls: Tls | None = None
    followed: tuple["Followed[Keys] | Followed[Identity]", ...] = ()

    def gauges(self) -> Iterator[Gauge]:
        if self.tls is not None:
            until_s = self.tls.identity.validity.not_after
            told = "When the certificate in force expires, in seconds since 1970."
            yield Gauge("accelserve_tls_certificate_not_after_seconds", told, {}, until_s)
        for followed in self.followed:
            told = "1 while a file of keys or of TLS cannot be used, and what it held before stays in force."
            yield Gauge("accelserve_security_file_unusable", told, {"option": followed.option}, int(followed.unusable))

    async def follow(self) -> None:
        """For as long as the server runs: put into force what the files hold now."""
        while self.followed:
            await asyncio.sleep(_LOOK_S)
            for followed in self.followed:
                await followed.look()


class Followed(Generic[Read]):
    """Files that may change, and what was last made of them.

    read: on a thread; what it gave before when nothing has changed. Raises KeyFileError or TlsError. use: on the loop.
    A file that is wrong is told of when it is still so at the next look: two files are not replaced at once.
    """

    def __init__(
        self,
        option: str,
        path: str,
        first: Read,
        read: Callable[[], Read],
        use: Callable[[Read], None],
        mark: Callable[[Read], object] = lambda read: read,
    ) -> None:
        """option: that names the file, or the first of the files, at `path`; first: what was read at the start.

        mark: what is kept of what was read, to see whether it has changed.
        """
        self.option = option
        self._what = f"{option} {path}"
        self._mark = mark
        self._last = mark(first)
        self._read = read
        self._use = use
        self._problem = ""
        self._told = False

    @property
    def unusable(self) -> bool:
        return self._told

    async def look(self) -> None:
        try:
            found = await asyncio.to_thread(self._read)
        except (KeyFileError, TlsError) as error:
            self._troubled(str(error))
            return
        except Exception:  # a fault of ours must not end the looking
            _LOG.exception("%s could not be looked at", self._what)
            return
        if self._told:
            _LOG.warning("%s can be read again", self._what)
        self._problem, self._told = "", False
        mark = self._mark(found)
        if mark != self._last:
            self._last = mark
            self._use(found)

    def _troubled(self, problem: str) -> None:
        if problem != self._problem:
            self._problem, self._told = problem, False
        elif not self._told:
            self._told = True
            _LOG.error("%s: the old one stays in force until this is repaired: %s", self._what, problem)


def open_security(
    config: ServerConfig,
    internal_key: str = "",
    open_http: re.Pattern[str] = OPEN_HTTP,
    *,
    open_preflight: bool = False,
) -> Security:
    """What `config` asks for.

    internal_key: one more that is accepted, of the server's own processes. open_http: paths that need no key;
    open_preflight: nor does OPTIONS. Raises ConfigError with every problem.
    """
    problems: list[str] = []
    keys, identity = _keys(config, problems), _identity(config, problems)
    for warning in _warnings(config):
        if config.strict and warning.remedy:
            problems.append(f"{warning.text}: {warning.remedy} (--strict refuses it)")
        else:
            _LOG.warning("%s", ": ".join(filter(None, (warning.text, warning.remedy))))
    if problems:
        raise ConfigError(problems)
    followed: list[Followed[Keys] | Followed[Identity]] = []
    guards: tuple[Guard | None, Guard | None] = (None, None)
    if keys is not None:
        ring, path = Keyring(keys, internal_key), Path(config.auth_keys)
        open_paths = (None, None) if config.auth_everywhere else (open_http, OPEN_GRPC)
        guards = Guard(ring, open_paths[0], open_preflight=open_preflight), Guard(ring, open_paths[1])
        followed.append(
            Followed("--auth-keys", str(path), keys, lambda: read_keys(path), _new_keys(ring, path), digests_of)
        )
    tls = None
    if identity is not None:
        tls = Tls(identity)
        followed.append(_followed_tls(tls, _files(config)))
    return Security(*guards, tls, tuple(followed))


def _keys(config: ServerConfig, problems: list[str]) -> Keys | None:
    try:
        return read_keys(Path(config.auth_keys)) if config.auth_keys else None
    except KeyFileError as error:
        problems.append(f"--auth-keys: {error}")
        return None


def _files(config: ServerConfig) -> TlsFiles:
    return TlsFiles(
        Path(config.tls_cert), Path(config.tls_key), Path(config.tls_client_ca) if config.tls_client_ca else None
    )


def _identity(config: ServerConfig, problems: list[str]) -> Identity | None:
    if not config.tls_cert:
        return None
    try:
        identity = read_identity(_files(config))
    except TlsError as error:
        problems.append(str(error))
        return None
    _tell_problems(identity, config.tls_cert)
    return identity


def _new_keys(ring: Keyring, path: Path) -> Callable[[Keys], None]:
    def use(keys: Keys) -> None:
        ring.replace(keys)
        _LOG.info("the keys of %s have changed, and are in force", path)
        if (warning := _seen_by_all("--auth-keys", path)) is not None:
            _LOG.warning("%s: %s", warning.text, warning.remedy)

    return use


def _followed_tls(tls: Tls, files: TlsFiles) -> Followed[Identity]:
    def read() -> Identity:
        return tls.identity if tls.identity.holds(read_contents(files)) else read_identity(files)

    def use(identity: Identity) -> None:
        tls.replace(identity)
        _LOG.info("new connections use the certificate that is in %s now", files.cert)
        _tell_problems(identity, str(files.cert))

    return Followed("--tls-cert", str(files.cert), tls.identity, read, use)


def _tell_problems(identity: Identity, path: str) -> None:
    for problem in (validity_problem(identity.validity, time.time()), key_problem(identity.key_kind)):
        if problem is not None:
            _LOG.warning("the certificate in %s %s", path, problem)


@dataclass(frozen=True, slots=True)
class _Warning:
    """remedy: what can be done to the files; those that have one are refused by --strict."""

    text: str
    remedy: str = ""


def _warnings(config: ServerConfig) -> list[_Warning]:
    found = []
    for flag, path in (("--auth-keys", config.auth_keys), ("--tls-key", config.tls_key)):
        if path and (warning := _seen_by_all(flag, Path(path))) is not None:
            found.append(warning)
    if config.auth_keys and not config.tls_cert and not is_loopback(config.host):
        found.append(
            _Warning(
                f"KEYS TRAVEL IN PLAIN TEXT: --auth-keys without --tls-cert on {config.host}; whoever sees the traffic"
                " has the keys. Say --tls-cert and --tls-key, unless something in front of this server speaks TLS"
            )
        )
    return found


def _seen_by_all(flag: str, path: Path) -> _Warning | None:
    if not readable_by_others(path):
        return None
    return _Warning(f"{flag} {path} can be read by every user of this machine", f"chmod 600 {path}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"

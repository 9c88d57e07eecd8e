"""TLS for both listeners from one pair of PEM files, which may be replaced while the server runs.

Connections keep what they were made with; each new one is made with what is in force then.
"""

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from accelserve.frontends.certificates import Validity, blocks_of, is_encrypted, key_kind, pem_blocks, validity
from accelserve.small_files import read_small

_MOST_FILE_BYTES = 2**20
_CERTIFICATE, _KEY = "CERTIFICATE", "PRIVATE KEY"  # how the labels of PEM's blocks end
# What OpenSSL calls a key of another certificate, of the same kind of key and of another.
_OTHERS_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
_TAKEN_BY_ALL = ("RSA", "P-256", "P-384")
_LOG = logging.getLogger("accelserve.frontends.tls")
_TOLD = b'{"error":"this port speaks TLS; ask https:// in place of http://"}'
_PLAIN_HTTP = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(_TOLD), _TOLD)
)


class TlsError(Exception):
    """Files that TLS cannot be spoken with. The text names file and remedy, and tells nothing of a key."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """client_ca: who signs the certificates that clients must have; None where clients need none."""

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Identity:
    """What the files held at one moment, checked. context: of the standard library, for HTTP; the PEM is for gRPC.

    key_kind: "RSA", "P-256", ...
    """

    cert: bytes
    key: bytes
    client_ca: bytes | None
    context: ssl.SSLContext
    validity: Validity
    key_kind: str

    def holds(self, contents: tuple[bytes, bytes, bytes | None]) -> bool:
        return contents == (self.cert, self.key, self.client_ca)


def read_identity(files: TlsFiles) -> Identity:
    """Raises TlsError that names what is wrong with which file."""
    before = read_contents(files)
    context = _context(files, *before)
    if read_contents(files) != before:  # OpenSSL reads them by itself, and must have read the same
        raise TlsError(f"TLS: {files.cert} or {files.key} changed while it was read")
    try:
        valid, kind = validity(before[0]), key_kind(before[0])
    except ValueError as error:
        raise TlsError(f"--tls-cert {files.cert}: {error}") from None
    if not kind:
        raise TlsError(f"--tls-cert {files.cert}: gRPC has no use for this kind of key; want RSA, P-256 or P-384")
    return Identity(*before, context, valid, kind)


def read_contents(files: TlsFiles) -> tuple[bytes, bytes, bytes | None]:
    """(certificates, key, client's roots), as PEM. Raises TlsError."""
    ca = None if files.client_ca is None else _pem("--tls-client-ca", files.client_ca, _CERTIFICATE)
    return _pem("--tls-cert", files.cert, _CERTIFICATE), _pem("--tls-key", files.key, _KEY), ca


def validity_problem(valid: Validity, now_s: float) -> str | None:
    """now_s: since 1970."""
    if now_s >= valid.not_after:
        return "has expired: clients will refuse it; replace the file, the server looks at it again by itself"
    if now_s < valid.not_before:
        return "is not valid yet: clients will refuse it"
    return None


def key_problem(kind: str) -> str | None:
    """What is to be said of a kind of key that a server can have and gRPC's own library, as a client, refuses."""
    if kind in _TAKEN_BY_ALL:
        return None
    return f"has a {kind} key, which many clients of gRPC refuse, Python's among them: RSA, P-256 and P-384 suit all"


class Tls:
    """The identity in force. `context` is for `create_server`, `grpc_credentials()` for gRPC's listener."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.context = _CurrentContext(lambda: self.identity.context)

    def replace(self, identity: Identity) -> None:
        """From now on new connections are made with this one."""
        self.identity = identity

    def grpc_credentials(self) -> Any:
        """grpc.ServerCredentials that ask, on gRPC's own threads and at each handshake, whether anything is new."""
        given = self.identity

        def newer() -> Any:
            nonlocal given
            if given is self.identity:
                return None
            given = self.identity
            return _grpc_configuration(given)

        wants_certificate = given.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(_grpc_configuration(given), newer, wants_certificate)


class _CurrentContext(ssl.SSLContext):
    """Has each connection made by the context that is in force: a context in use is never changed."""

    _current: Callable[[], ssl.SSLContext]

    def __new__(cls, current: Callable[[], ssl.SSLContext]) -> "_CurrentContext":
        made = super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)
        made._current = current
        return made

    def __init__(self, current: Callable[[], ssl.SSLContext]) -> None:
        pass

    def wrap_bio(
        self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *arguments: Any, **named: Any
    ) -> ssl.SSLObject:
        made = self._current().wrap_bio(incoming, outgoing, *arguments, **named)
        if isinstance(made, _LastWords):
            made.outgoing = outgoing
        return made


class _LastWords(ssl.SSLObject):
    """Has it told to the client why a handshake failed: uvloop would cut the connection without a word.

    It says once more that the handshake goes on, so that what there is to say is sent; the client then closes, or the
    limit for handshakes does. To plain HTTP it says so in plain HTTP.
    """

    outgoing: ssl.MemoryBIO
    _failed = False

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except ssl.SSLWantReadError:
            raise
        except ssl.SSLError as error:
            if self._failed:
                raise
            self._failed = True
            _LOG.debug("a TLS handshake failed: %s", error.reason)
            if error.reason == "HTTP_REQUEST":
                self.outgoing.read()
                self.outgoing.write(_PLAIN_HTTP)
            if not self.outgoing.pending:
                raise
            raise ssl.SSLWantReadError from None


def _grpc_configuration(identity: Identity) -> Any:
    pair = blocks_of(identity.key, _KEY), blocks_of(identity.cert, _CERTIFICATE)
    ca = None if identity.client_ca is None else blocks_of(identity.client_ca, _CERTIFICATE)
    return grpc.ssl_server_certificate_configuration([pair], ca)


def _pem(option: str, path: Path, wanted: str) -> bytes:
    try:
        content = read_small(path, _MOST_FILE_BYTES)
    except OSError as error:
        raise TlsError(f"{option} {path}: {error.strerror}") from None
    blocks = pem_blocks(content) if len(content) <= _MOST_FILE_BYTES else ()
    if not any(block.endswith(wanted) for block in blocks):
        held = f"; it holds {', '.join(dict.fromkeys(blocks))}" if blocks else ""
        raise TlsError(f"{option} {path}: want PEM with -----BEGIN {wanted}-----{held}")
    return content


def _context(files: TlsFiles, cert: bytes, key: bytes, client_ca: bytes | None) -> ssl.SSLContext:
    if is_encrypted(key):
        raise TlsError(f"--tls-key {files.key}: it is encrypted; want a key without a passphrase (openssl pkey)")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = _LastWords
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.cert, files.key, password=lambda: b"")  # never asks at a terminal
    except ssl.SSLError as error:
        if error.reason in _OTHERS_KEY:
            wanted = "whose first certificate has to be the server's own, before those that signed it"
            raise TlsError(f"--tls-key {files.key} does not belong to --tls-cert {files.cert}, {wanted}") from None
        raise TlsError(f"--tls-cert {files.cert} with --tls-key {files.key}: {_why(error)}") from None
    except OSError as error:
        raise TlsError(f"--tls-cert {files.cert} with --tls-key {files.key}: {error.strerror}") from None
    if client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(cadata=client_ca.decode("ascii", "ignore"))
        except ssl.SSLError as error:
            raise TlsError(f"--tls-client-ca {files.client_ca}: {_why(error)}") from None
    return context


def _why(error: ssl.SSLError) -> str:
    """OpenSSL's word for it."""
    reason = (error.reason or "").replace("_", " ").lower()
    return f"OpenSSL cannot use it ({reason})" if reason else "OpenSSL cannot read it as PEM"

"""What a PEM file holds, without a library for certificates: which blocks, and what a certificate is good for."""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
# The algorithm of a public key, for EC with its curve (RFC 3279 2.3, 5480 2.1.1, 8410 3): DER of object identifiers.
_EC = bytes.fromhex("2a8648ce3d0201")
_KINDS = {
    (bytes.fromhex("2a864886f70d010101"), b""): "RSA",
    (_EC, bytes.fromhex("2a8648ce3d030107")): "P-256",
    (_EC, bytes.fromhex("2b81040022")): "P-384",
    (_EC, bytes.fromhex("2b81040023")): "P-521",
    (bytes.fromhex("2b6570"), b""): "Ed25519",
}
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0
_VALIDITY, _PUBLIC_KEY = 3, 5  # of what is signed, without the version


@dataclass(frozen=True, slots=True)
class Validity:
    """Of a certificate, in seconds since 1970."""

    not_before: float
    not_after: float


def pem_blocks(content: bytes) -> tuple[str, ...]:
    """The labels of a PEM file's blocks, in order: "CERTIFICATE", "PRIVATE KEY", ..."""
    return tuple([found[1].decode() for found in _BLOCK.finditer(content)])


def is_encrypted(content: bytes) -> bool:
    """Whether a PEM file's key wants a passphrase."""
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in content or b"Proc-Type: 4,ENCRYPTED" in content


def blocks_of(content: bytes, ending: str) -> bytes:
    """Of a PEM file only the blocks whose label ends so: what lies between them is read by one library, not by all."""
    return b"\n".join([found[0] for found in _BLOCK.finditer(content) if found[1].endswith(ending.encode())])


def validity(content: bytes) -> Validity:
    """Of the first certificate in a PEM file, which is the server's own. Raises ValueError."""
    (from_tag, from_text), (to_tag, to_text), *_ = _elements(_signed_parts(content)[_VALIDITY])
    return Validity(_seconds(from_tag, from_text), _seconds(to_tag, to_text))


def key_kind(content: bytes) -> str:
    """Of the same certificate: "RSA", "P-256", ... or "" for a kind that is none of these. Raises ValueError."""
    (_, algorithm), *_ = _elements(_signed_parts(content)[_PUBLIC_KEY])
    (_, name), *parameters = _elements(algorithm)
    return _KINDS.get((name, parameters[0][1] if parameters else b""), "")


def _signed_parts(content: bytes) -> list[bytes]:
    """RFC 5280 4.1: { { [version], serial, algorithm, issuer, validity, subject, public key, ... }, ... }."""
    block = next((found[0] for found in _BLOCK.finditer(content) if found[1] == b"CERTIFICATE"), None)
    if block is None:
        raise ValueError("no certificate")
    (_, signed), *_ = _elements(_only(ssl.PEM_cert_to_DER_cert(block.decode("ascii"))))
    parts = [part for tag, part in _elements(signed) if tag != _VERSION]
    if len(parts) <= _PUBLIC_KEY:
        raise ValueError("not the DER of a certificate")
    return parts


def _only(data: bytes) -> bytes:
    for tag, content in _elements(data):
        if tag == _SEQUENCE:
            return content
    raise ValueError("not the DER of a certificate")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of DER elements that lie behind each other."""
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise ValueError("not the DER of a certificate")
        tag, length, at = data[at], data[at + 1], at + 2
        if length & 0x80:
            count = length & 0x7F
            length, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + length > len(data):
            raise ValueError("not the DER of a certificate")
        yield tag, data[at : at + length]
        at += length


def _seconds(tag: int, text: bytes) -> float:
    """RFC 5280 4.1.2.5: years of two digits are 1950 to 2049; always to the second, and always UTC."""
    moment = text.decode("ascii")
    if tag == _UTC_TIME:
        moment = f"{'19' if moment[:2] >= '50' else '20'}{moment}"
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not the DER of a certificate")
    return datetime.strptime(moment, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()

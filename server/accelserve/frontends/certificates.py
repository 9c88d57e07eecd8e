"""What a PEM file holds, without a library for certificates: which blocks, and until when a certificate is valid."""

import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_SEQUENCE, _UTC_TIME, _GENERALIZED_TIME, _VERSION = 0x30, 0x17, 0x18, 0xA0


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


def validity(content: bytes) -> Validity:
    """Of the first certificate in a PEM file, which is the server's own. Raises ValueError."""
    block = next((found[0] for found in _BLOCK.finditer(content) if found[1] == b"CERTIFICATE"), None)
    if block is None:
        raise ValueError("no certificate")
    certificate = ssl.PEM_cert_to_DER_cert(block.decode("ascii"))
    try:
        # RFC 5280 4.1: Certificate { tbsCertificate { [version], serial, algorithm, issuer, validity { from, to }, ...
        (_, signed), *_ = _elements(_only(certificate))
        parts = [part for part in _elements(signed) if part[0] != _VERSION]
        (from_tag, from_text), (to_tag, to_text), *_ = _elements(parts[3][1])
        return Validity(_seconds(from_tag, from_text), _seconds(to_tag, to_text))
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("not the DER of a certificate") from error


def _only(data: bytes) -> bytes:
    for tag, content in _elements(data):
        if tag == _SEQUENCE:
            return content
    raise ValueError("not the DER of a certificate")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of DER elements that lie behind each other."""
    at = 0
    while at < len(data):
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

"""Requests that are wrong, or odd and yet right: framing that once smuggled requests past proxies, broken heads."""

from dataclasses import dataclass

BODY = b'{"instances": [[1, 2]]}'
TARGET = b"/v1/models/double:predict"
_LENGTH = b"Content-Length: %d" % len(BODY)
_CHUNKED = b"Transfer-Encoding: chunked"
_CHUNKS = b"17\r\n" + BODY + b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Bad:
    """status: of the first answer, 0 for none as yet."""

    name: str
    data: bytes
    status: int = 400


def head(*lines: bytes, first: bytes = b"POST " + TARGET + b" HTTP/1.1", host: bytes = b"Host: x") -> bytes:
    return b"\r\n".join((first, *([host] if host else []), *lines, b"", b""))


def _lengths(name: str, *lines: bytes, body: bytes = BODY, status: int = 400) -> Bad:
    return Bad(f"length: {name}", head(*lines) + body, status)


def _codings(name: str, *lines: bytes, body: bytes = _CHUNKS, status: int = 400) -> Bad:
    return Bad(f"coding: {name}", head(*lines) + body, status)


def _chunks(name: str, body: bytes, status: int = 400) -> Bad:
    return Bad(f"chunks: {name}", head(_CHUNKED) + body, status)


def _heads(name: str, data: bytes, status: int = 400) -> Bad:
    return Bad(f"head: {name}", data, status)


LENGTHS = (
    _lengths("with a coding behind", _LENGTH, _CHUNKED),
    _lengths("with a coding before", _CHUNKED, _LENGTH),
    _lengths("with a coding and other headers between", _LENGTH, b"A: b", b"transfer-encoding: CHUNKED"),
    _lengths("twice, unequal", _LENGTH, b"Content-Length: 5"),
    _lengths("twice, equal", _LENGTH, _LENGTH),
    _lengths("a list of equals", b"Content-Length: 23, 23"),
    _lengths("a list of unequals", b"Content-Length: 23, 5"),
    _lengths("with a plus", b"Content-Length: +23"),
    _lengths("with a minus", b"Content-Length: -23"),
    _lengths("minus zero", b"Content-Length: -0"),
    _lengths("in hexadecimal", b"Content-Length: 0x17"),
    _lengths("with a point", b"Content-Length: 23.0"),
    _lengths("with an exponent", b"Content-Length: 2e1"),
    _lengths("with an underscore", b"Content-Length: 2_3"),
    _lengths("with a space within", b"Content-Length: 2 3"),
    _lengths("with a tab within", b"Content-Length: 2\t3"),
    _lengths("with spaces and tabs around", b"Content-Length: \t 23 \t ", status=200),
    _lengths("with zeros before", b"Content-Length: 000000000000000000000000023", status=200),
    _lengths("empty", b"Content-Length:"),
    _lengths("blank", b"Content-Length:   "),
    _lengths("in other digits", "Content-Length: \u0662\u0663".encode()),
    _lengths("in full-width digits", "Content-Length: \uff12\uff13".encode()),
    _lengths("of 2**63 - 1", b"Content-Length: 9223372036854775807", status=413),
    _lengths("of 2**64 - 1", b"Content-Length: 18446744073709551615", status=413),
    _lengths("of 2**64 + 23", b"Content-Length: 18446744073709551639"),
    _lengths("of 2**32 + 23", b"Content-Length: 4294967319", status=413),
    _lengths("of a thousand digits", b"Content-Length: " + b"9" * 1000),
    _lengths("quoted", b'Content-Length: "23"'),
    _lengths("with a space before the colon", b"Content-Length : 23"),
    _lengths("with a tab before the colon", b"Content-Length\t: 23"),
    _lengths("with a NUL in its name", b"Content-Length\0: 23"),
    _lengths("with a NUL behind", b"Content-Length: 23\0"),
    _lengths("with a vertical tab", b"Content-Length: \x0b23"),
    _lengths("with a bare CR behind", b"Content-Length: 23\r"),
    _lengths("with a bare CR before a coding", b"Content-Length: 23\rTransfer-Encoding: chunked"),
    _lengths("with a bare LF before a coding", b"Content-Length: 23\nTransfer-Encoding: chunked"),
    _lengths("folded", b"Content-Length:\r\n 23"),
    _lengths("folded with a tab", b"X: y\r\n\tContent-Length: 23"),
    _lengths("in the name of another", b"X-Content-Length: 23", body=b""),
    _lengths("with an underscore in its name", b"Content_Length: 23", body=b""),
    _lengths("with a Kelvin sign in its name", "\u212aontent-Length: 23".encode()),
)

CODINGS = (
    _codings("in capitals", b"TRANSFER-ENCODING: CHUNKED", status=200),
    _codings("chunked twice", b"Transfer-Encoding: chunked, chunked"),
    _codings("chunked in two headers", _CHUNKED, _CHUNKED),
    _codings("gzip, chunked", b"Transfer-Encoding: gzip, chunked", status=501),
    _codings("gzip and chunked in two headers", b"Transfer-Encoding: gzip", _CHUNKED, status=501),
    _codings("chunked, gzip", b"Transfer-Encoding: chunked, gzip"),
    _codings("chunked, identity", b"Transfer-Encoding: chunked, identity"),
    _codings("identity", b"Transfer-Encoding: identity", status=501),
    _codings("identity and a length", b"Transfer-Encoding: identity", _LENGTH, body=BODY),
    _codings("empty", b"Transfer-Encoding:"),
    _codings("a comma", b"Transfer-Encoding: ,", status=501),
    _codings("a comma before", b"Transfer-Encoding: , chunked", status=501),
    _codings("a comma behind", b"Transfer-Encoding: chunked,"),
    _codings("xchunked", b"Transfer-Encoding: xchunked", status=501),
    _codings("chunkedx", b"Transfer-Encoding: chunkedx", status=501),
    _codings("quoted", b'Transfer-Encoding: "chunked"', status=501),
    _codings("with a tab before", b"Transfer-Encoding:\tchunked", status=200),
    _codings("with a tab behind", b"Transfer-Encoding: chunked\t"),
    _codings("with a space behind", b"Transfer-Encoding: chunked ", status=200),
    _codings("with a vertical tab before", b"Transfer-Encoding: \x0bchunked"),
    _codings("with a parameter", b"Transfer-Encoding: chunked;q=1", status=501),
    _codings("with a space before the colon", b"Transfer-Encoding : chunked"),
    _codings("with a bare LF", b"X: y\nTransfer-Encoding: chunked"),
    _codings("with a bare CR", b"X: y\rTransfer-Encoding: chunked"),
    _codings("folded", b"Transfer-Encoding:\r\n chunked"),
    _codings("folded in the middle", b"Transfer-Encoding: chun\r\n ked"),
    _codings("with a NUL", b"Transfer-Encoding: chunked\0"),
    _codings("with a NUL in its name", b"Transfer-\0Encoding: chunked"),
    Bad("coding: in HTTP/1.0", head(_CHUNKED, first=b"POST " + TARGET + b" HTTP/1.0") + _CHUNKS, 200),
)

CHUNKS = (
    _chunks("a size that overflows", b"fffffffffffffffff1\r\n"),
    _chunks("a size of 2**64 + 23", b"10000000000000017\r\n" + BODY),
    _chunks("a size of 2**64 - 1", b"ffffffffffffffff\r\n" + BODY, 0),
    _chunks("a size over the limit", b"1000000\r\n" + bytes(100), 0),
    _chunks("zeros before a size", b"00000000000000000000000000000017\r\n" + BODY + b"\r\n0\r\n\r\n", 200),
    _chunks("a negative size", b"-17\r\n" + BODY),
    _chunks("a size with a plus", b"+17\r\n" + BODY),
    _chunks("a size with 0x", b"0x17\r\n" + BODY),
    _chunks("a size with a space before", b" 17\r\n" + BODY),
    _chunks("a size with a space behind", b"17 \r\n" + BODY),
    _chunks("no size", b"\r\n" + BODY),
    _chunks("a size that is none", b"zz\r\n" + BODY),
    _chunks("an extension", b"17;a=b\r\n" + BODY + b"\r\n0;c\r\n\r\n", 200),
    _chunks("an extension in quotes", b'17;a="b;c"\r\n' + BODY + b"\r\n0\r\n\r\n", 200),
    _chunks("an extension without a name", b"17;\r\n" + BODY),
    _chunks("an extension with a bare LF", b"17;a\nb\r\n" + BODY),
    _chunks("a bare LF behind a size", b"17\n" + BODY + b"\n0\n\n"),
    _chunks("a bare CR behind a size", b"17\r" + BODY),
    _chunks("no CRLF behind a chunk", b"17\r\n" + BODY + b"0\r\n\r\n"),
    _chunks("a bare LF behind a chunk", b"17\r\n" + BODY + b"\n0\r\n\r\n"),
    _chunks("more than a size says", b"5\r\n" + BODY),
    _chunks("a trailer that frames", b"17\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n"),
    _chunks("a trailer that closes", b"17\r\n" + BODY + b"\r\n0\r\nConnection: close\r\n\r\n", 200),
    _chunks("a trailer that is broken", b"17\r\n" + BODY + b"\r\n0\r\nbro ken\r\n\r\n"),
)

HEADS = (
    _heads("a NUL in a value", head(b"X: a\0b", _LENGTH) + BODY),
    _heads("a NUL in a name", head(b"X\0: ab", _LENGTH) + BODY),
    _heads("a bell in a name", head(b"X\a: ab", _LENGTH) + BODY),
    _heads("high bytes in a name", head(b"X\xe9: ab", _LENGTH) + BODY),
    _heads("high bytes in a value", head(b"X: \xe9\xff", _LENGTH) + BODY, 200),
    _heads("no name", head(b": ab", _LENGTH) + BODY),
    _heads("no colon", head(b"ab", _LENGTH) + BODY),
    _heads("brackets in a name", head(b"X[]: ab", _LENGTH) + BODY),
    _heads("a space before a name", head(b" X: ab", _LENGTH) + BODY),
    _heads("a space before the first name", head(_LENGTH, host=b" Host: x") + BODY),
    _heads("two hosts", head(b"Host: y", _LENGTH) + BODY, 200),
    _heads("no host", head(_LENGTH, host=b"") + BODY, 200),
    _heads("a host that is none", head(_LENGTH, host=b"Host: a/b@c?d") + BODY, 200),
    _heads("bare LFs", head(_LENGTH).replace(b"\r\n", b"\n") + BODY),
    _heads("bare CRs", head(_LENGTH).replace(b"\r\n", b"\r") + BODY),
    _heads("a bare LF at its end", head(_LENGTH)[:-2] + b"\n" + BODY),
    _heads("a bare CR at its end", head(_LENGTH)[:-2] + b"\r" + BODY),
    _heads("LF CR for CR LF", head(_LENGTH).replace(b"\r\n", b"\n\r") + BODY),
    _heads("three CRs", head(_LENGTH).replace(b"\r\n", b"\r\r\n") + BODY),
    _heads("a path with a space", head(_LENGTH, first=b"POST /a b HTTP/1.1") + BODY),
    _heads("a path with a NUL", head(_LENGTH, first=b"POST /\0 HTTP/1.1") + BODY),
    _heads("a path with high bytes", head(_LENGTH, first=b"POST /\xc3\xa9 HTTP/1.1") + BODY),
    _heads("a path without its slash", head(_LENGTH, first=b"POST score HTTP/1.1") + BODY),
    _heads("a path with a fragment", head(_LENGTH, first=b"POST " + TARGET + b"#x HTTP/1.1") + BODY, 200),
    _heads("an absolute path", head(_LENGTH, first=b"POST http://other" + TARGET + b" HTTP/1.1") + BODY, 200),
    _heads(
        "an absolute path in capitals", head(_LENGTH, first=b"POST HTTP://OTHER" + TARGET + b" HTTP/1.1") + BODY, 200
    ),
    _heads(
        "an absolute path with a user", head(_LENGTH, first=b"POST http://a:b@c" + TARGET + b" HTTP/1.1") + BODY, 200
    ),
    _heads("a host alone", head(_LENGTH, first=b"POST http://other HTTP/1.1") + BODY, 404),
    _heads("a host and a query alone", head(_LENGTH, first=b"POST http://other?a=b HTTP/1.1") + BODY, 404),
    _heads("an absolute path of no host", head(_LENGTH, first=b"POST http:///score HTTP/1.1") + BODY),
    _heads("an authority", head(_LENGTH, first=b"POST other:80 HTTP/1.1") + BODY),
    _heads("CONNECT", head(first=b"CONNECT other:80 HTTP/1.1")),
    _heads("CONNECT to a path", head(first=b"CONNECT /score HTTP/1.1"), 405),
    _heads("a star", head(_LENGTH, first=b"POST * HTTP/1.1") + BODY, 404),
    _heads("a verb in small letters", head(_LENGTH, first=b"post " + TARGET + b" HTTP/1.1") + BODY),
    _heads("a verb that is none", head(_LENGTH, first=b"BREW " + TARGET + b" HTTP/1.1") + BODY),
    _heads("a verb with a bang", head(_LENGTH, first=b"POST! " + TARGET + b" HTTP/1.1") + BODY),
    _heads("a tab for a space", head(_LENGTH, first=b"POST\t" + TARGET + b" HTTP/1.1") + BODY),
    _heads("two spaces", head(_LENGTH, first=b"POST  " + TARGET + b"  HTTP/1.1") + BODY, 200),
    _heads("a space behind", head(_LENGTH, first=b"POST " + TARGET + b" HTTP/1.1 ") + BODY),
    _heads("a space before", b" " + head(_LENGTH) + BODY),
    _heads("HTTP/0.9", b"GET /healthz\r\n\r\n"),
    _heads("HTTP/0.9 said", head(first=b"GET /healthz HTTP/0.9")),
    _heads("HTTP/1.2", head(_LENGTH, first=b"POST " + TARGET + b" HTTP/1.2") + BODY),
    _heads("HTTP/1.10", head(_LENGTH, first=b"POST " + TARGET + b" HTTP/1.10") + BODY),
    _heads("HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(20)),
    _heads("HTTP/2 said", head(_LENGTH, first=b"POST " + TARGET + b" HTTP/2.0") + BODY),
    _heads("HTTP in small letters", head(_LENGTH, first=b"POST " + TARGET + b" http/1.1") + BODY),
    _heads("ICE for HTTP", head(_LENGTH, first=b"POST " + TARGET + b" ICE/1.1") + BODY),
    _heads("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x11" * 200),
    _heads("zeros", bytes(100)),
    _heads("a long request line", head(first=b"GET /" + b"a" * 9000 + b" HTTP/1.1"), 414),
    _heads("many headers", head(*[b"a: b"] * 120, _LENGTH) + BODY, 431),
    _heads("long headers", head(b"a: " + b"b" * 9000, _LENGTH) + BODY, 431),
    _heads("connection lists", head(b"Connection: keep-alive, close", _LENGTH) + BODY, 200),
    _heads("an upgrade to WebSocket", head(b"Connection: Upgrade", b"Upgrade: websocket", _LENGTH) + BODY, 200),
    _heads("another expectation", head(b"Expect: 200-ok", _LENGTH) + BODY, 200),
)

ALL = (*LENGTHS, *CODINGS, *CHUNKS, *HEADS)

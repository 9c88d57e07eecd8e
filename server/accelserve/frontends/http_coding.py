"""Content-Encoding: what a body was packed with."""

from accelserve.codecs.bodies import gunzip
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_messages import HttpRequest
from accelserve.frontends.offload import LARGE_BYTES, Offload

_GZIP = ("gzip", "x-gzip")  # RFC 9110 8.4.1.3: the same


async def unpacked(request: HttpRequest, offload: Offload, limit_bytes: int) -> bytes:
    """The body as it was before its Content-Encoding.

    Raises ScoringError: UNSUPPORTED_MEDIA for a coding that is not gzip, TOO_LARGE, INVALID as `gunzip`.
    """
    named = request.headers.get("content-encoding", "")
    codings = [coding for coding in named.lower().replace(" ", "").split(",") if coding not in ("", "identity")]
    if not codings:
        return request.body
    if len(codings) > 1 or codings[0] not in _GZIP:
        raise ScoringError(Kind.UNSUPPORTED_MEDIA, f"Content-Encoding: want gzip or identity, got {named[:64]!r}")
    # A thousand bytes may hold a million: nothing but trying tells.
    small = _gunzip_small(request.body, min(LARGE_BYTES, limit_bytes))
    return small if small is not None else await offload.run(gunzip, request.body, limit_bytes)


def _gunzip_small(data: bytes, most_bytes: int) -> bytes | None:
    """As `gunzip`; None when it takes more than a moment."""
    if len(data) > most_bytes:
        return None
    try:
        return gunzip(data, most_bytes)
    except ScoringError as error:
        if error.kind is not Kind.TOO_LARGE:
            raise
        return None

"""Content-Encoding: what a body was packed with."""

from collections.abc import Callable

from accelserve.codecs.bodies import gunzip, inflate
from accelserve.errors import Kind, ScoringError
from accelserve.frontends.http_messages import HttpRequest
from accelserve.frontends.offload import LARGE_BYTES, Offload

_Unpack = Callable[[bytes, int], bytes]
_UNPACK: dict[str, _Unpack] = {"gzip": gunzip, "x-gzip": gunzip, "deflate": inflate}  # RFC 9110 8.4.1


async def unpacked(request: HttpRequest, offload: Offload, limit_bytes: int) -> bytes:
    """The body as it was before its Content-Encoding.

    Raises ScoringError: UNSUPPORTED_MEDIA for another coding than gzip and deflate, TOO_LARGE, INVALID as `gunzip`.
    """
    named = request.headers.get("content-encoding", "")
    codings = [coding for coding in named.lower().replace(" ", "").split(",") if coding not in ("", "identity")]
    if not codings:
        return request.body
    unpack = _UNPACK.get(codings[0])
    if len(codings) > 1 or unpack is None:
        wanted = "want gzip, deflate or identity"
        raise ScoringError(Kind.UNSUPPORTED_MEDIA, f"Content-Encoding: {wanted}, got {named[:64]!r}")
    # A thousand bytes may hold a million: nothing but trying tells.
    small = _small(unpack, request.body, min(LARGE_BYTES, limit_bytes))
    return small if small is not None else await offload.run(unpack, request.body, limit_bytes)


def _small(unpack: _Unpack, data: bytes, most_bytes: int) -> bytes | None:
    """Unpacked; None when it takes more than a moment."""
    if len(data) > most_bytes:
        return None
    try:
        return unpack(data, most_bytes)
    except ScoringError as error:
        if error.kind is not Kind.TOO_LARGE:
            raise
        return None

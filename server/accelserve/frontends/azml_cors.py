"""Which pages of other origins may ask azmlinfsrv: its CORS header lines."""

import re
from collections.abc import Sequence

from accelserve.frontends.http_messages import Head

_METHODS = "GET, POST"
_LOOKS_LIKE_A_PATTERN = re.compile(r"[*\\\]?$^\[()]")


class Cors:
    """origins: as the user names them; none for no CORS at all.

    An origin ("https://a.example:8443"), a host of any scheme ("a.example"), "*", or a regular expression of whole
    origins. strict: the original's lines, which a request without an Origin gets too.
    """

    def __init__(self, origins: Sequence[str], *, strict: bool = False) -> None:
        """Raises ValueError for a regular expression that is none."""
        self._strict = strict
        self._any = "*" in origins
        patterns = [origin for origin in origins if _LOOKS_LIKE_A_PATTERN.search(origin) and origin != "*"]
        self._plain = sorted({origin.lower() for origin in origins} - {pattern.lower() for pattern in patterns} - {"*"})
        try:
            self._patterns = [re.compile(pattern, re.IGNORECASE) for pattern in patterns]
        except re.error as error:
            raise ValueError(f"want origins, or regular expressions of origins ({error})") from error
        self._on = bool(origins)
        self._varies = not self._any and (not strict or len(self._plain) + len(patterns) > 1 or bool(patterns))

    def lines(self, head: Head) -> str:
        """For any answer; for a preflight request what it asks for, too."""
        return head.read(self._read) if self._on else ""

    def _read(self, head: Head) -> str:
        allowed = self._allowed(head.headers.get("origin", ""))
        # With one fixed answer for everybody, nothing varies; without a match, a cache must still know that it may.
        vary = "vary: Origin\r\n" if self._varies and (allowed or not self._strict) else ""
        if not allowed:
            return vary
        return f"access-control-allow-origin: {allowed}\r\n{_preflight(head)}{vary}"

    def _allowed(self, origin: str) -> str:
        if not origin:
            if self._any:
                return "*"
            return self._plain[0] if self._strict and self._plain else ""
        if self._any:
            return origin if self._strict else "*"
        lowered = origin.lower()
        host = lowered.partition("://")[2]
        if lowered in self._plain or (not self._strict and host in self._plain):
            return origin
        return origin if any(pattern.fullmatch(origin) for pattern in self._patterns) else ""


def _preflight(head: Head) -> str:
    """Of an OPTIONS request that asks about a method that is there."""
    wanted = head.headers.get("access-control-request-method", "").upper()
    if head.method != "OPTIONS" or wanted not in _METHODS.split(", "):
        return ""
    names = [name.strip() for name in head.headers.get("access-control-request-headers", "").split(",")]
    asked = ", ".join(sorted(filter(None, names)))
    allow_headers = f"access-control-allow-headers: {asked}\r\n" if asked else ""
    return f"{allow_headers}access-control-allow-methods: {_METHODS}\r\n"

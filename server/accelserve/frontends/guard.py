"""Who may ask: whoever has a key, and for some paths everybody."""

import re

from accelserve.errors import Kind, ScoringError
from accelserve.keys import Keyring

# What is asked by those who look after the server, and tells nothing of what it computes.
OPEN_HTTP = re.compile(r"/healthz|/readyz(/[^/]*)?|/metrics|/monitoring/prometheus/metrics")
OPEN_GRPC = re.compile(r"/grpc\.health\.v1\.Health/[^/]+")
_NO_KEY = {"", "bearer"}


class Guard:
    """Judges a request by its head. May be asked on any thread.

    open_paths: that need no key, each matched as a whole; None for none. open_preflight: nor does OPTIONS, which a
    browser sends without one before it sends a page's request.
    """

    def __init__(self, keyring: Keyring, open_paths: re.Pattern[str] | None, *, open_preflight: bool = False) -> None:
        self._keyring = keyring
        self._open = open_paths
        self._open_preflight = open_preflight

    @property
    def version(self) -> int:
        """Never 0, and another one when the keys have changed: what was let in before is to be judged again."""
        return self._keyring.version

    def refusal(self, path: str, authorization: str | None, method: str = "") -> ScoringError | None:
        """Why a request is turned away; None when it is let in. authorization: its only such header's value."""
        if self._keyring.accepts(authorization) or (self._open is not None and self._open.fullmatch(path)):
            return None
        if self._open_preflight and method == "OPTIONS":
            return None
        if authorization is None or authorization.strip().lower() in _NO_KEY:
            return ScoringError(Kind.UNAUTHENTICATED, "a key is wanted here, in the header: Authorization: Bearer KEY")
        return ScoringError(
            Kind.UNAUTHENTICATED, "the key in the Authorization header is not one of this server's keys"
        )

"""What the server said instead of an answer, the same for both protocols."""

import re


class ServerError(Exception):
    """The server said no.

    status: HTTP's number, or gRPC's name ("UNAVAILABLE"). reason: the server's short word, empty if it gave none.
    retry_after_s: when trying again may help.
    """

    def __init__(self, status: int | str, message: str, reason: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message
        self.reason = reason
        self.retry_after_s = retry_after_s


def retry_seconds(text: str | None) -> int | None:
    """`Retry-After`, where it is a number; other servers may send a date, or nonsense."""
    return int(text) if text is not None and re.fullmatch("[0-9]{1,9}", text) else None

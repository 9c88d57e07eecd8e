"""What every way to an answer has in common: the question, the refusal, the times that a server tells."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLCertVerificationError, SSLError
from typing import Any, NamedTuple, Protocol

from accelserve.client import ServerError
from accelserve.errors import ExitCode
from accelserve.score_files.results import Spent

# So many digits are years, and no float's limit: whoever answers may be anybody.
_PART = re.compile(r"(queue|decode|compute)=([0-9]{1,15})us")
_ROWS = re.compile(r"batch=([0-9]{1,15})")
_MILLISECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")

# Every file would be refused so: a key, an address or a name is wrong.
_ENDS: Mapping[str, ExitCode] = {
    "401": ExitCode.USAGE,
    "403": ExitCode.USAGE,
    "404": ExitCode.NOT_FOUND,
    "UNAUTHENTICATED": ExitCode.USAGE,
    "PERMISSION_DENIED": ExitCode.USAGE,
    "NOT_FOUND": ExitCode.NOT_FOUND,
    "UNIMPLEMENTED": ExitCode.NOT_FOUND,
}
_KEY_REMEDY = "; a key is read from --key-file or ACCELSERVE_KEY"
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST")  # what OpenSSL says of bytes that are none of TLS
NO_CONNECTION = "NO CONNECTION"


class FileBody(NamedTuple):
    path: Path
    body: bytes

    @property
    def is_array(self) -> bool:
        return self.path.suffix == ".npy"


class Reply(NamedTuple):
    """answers: one for each file, as JSON's values."""

    answers: Sequence[Any]
    spent: Spent
    device: str = ""


@dataclass
class RefusalError(Exception):
    """The whole request was refused. status: as of `Failed`. again_s: when trying again may help.

    ends_with: whatever was asked would be refused; the exit code then. unreached: nobody answered.
    """

    status: str
    message: str
    ends_with: ExitCode | None = None
    unreached: bool = False
    again_s: int | None = None


class Asker(Protocol):
    """One thread's way to answers."""

    def ask(self, files: Sequence[FileBody]) -> Reply:
        """All in one request. Raises RefusalError."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked about every file.

    top: how many of the best, None for the answer as it is. input, output: the model's names, "" where there is one.
    labelled: whether the classes have names of the user's, so that all scores are wanted, to be counted.
    """

    model: str = ""
    input: str = ""
    output: str = ""
    top: int | None = None
    timeout_s: float = 30.0
    labelled: bool = False


def refusal_of(error: ServerError) -> RefusalError:
    status = str(error.status)
    unreached = status == "UNAVAILABLE" and not error.reason  # grpcio's own words: no server has said anything
    ends_with = ExitCode.NOT_FOUND if unreached else _ENDS.get(status)
    message = error.message + (_KEY_REMEDY if ends_with is ExitCode.USAGE else "")
    return RefusalError(NO_CONNECTION if unreached else status, message, ends_with, unreached, error.retry_after_s)


def no_connection(address: str, error: OSError) -> RefusalError:
    """Also for a connection that ended instead of an answer."""
    if isinstance(error, TimeoutError):
        return RefusalError("TIMEOUT", f"{address}: no answer in time")
    if isinstance(error, SSLCertVerificationError):
        said = f"{address}: its certificate is not trusted: {error.verify_message}; --tls-roots says who may sign it"
        return RefusalError(NO_CONNECTION, said, ExitCode.USAGE, unreached=True)
    if isinstance(error, SSLError) and error.reason in _NO_TLS:
        said = f"{address}: it does not speak TLS: http:// in place of https://?"
        return RefusalError(NO_CONNECTION, said, ExitCode.NOT_FOUND, unreached=True)
    return RefusalError(NO_CONNECTION, f"{address}: {error.strerror or error}", ExitCode.NOT_FOUND, unreached=True)


def spent_of(headers: Mapping[str, str], total_ms: float) -> Spent:
    """What `x-accelserve-timing` says; of a script behind another server the time of its run() alone."""
    told = headers.get("x-accelserve-timing", "")
    parts = {f"{name}_ms": int(number) / 1000 for name, number in _PART.findall(told)}
    if not parts and (run_ms := headers.get("x-ms-run-fn-exec-ms", "")):
        parts = {"compute_ms": float(run_ms)} if _MILLISECONDS.fullmatch(run_ms) else {}
    rows = _ROWS.search(told)
    return Spent(total_ms, **parts, rows=int(rows[1]) if rows else 0)

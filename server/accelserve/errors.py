"""One error tree, one table: what went wrong, and what each protocol calls it."""

from enum import Enum, IntEnum

# google.rpc.Code, by number.
GRPC_CODE_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)


class Outcome(Enum):
    """How a request ended. Received = ANSWERED + FAILED + REFUSED + CANCELLED."""

    ANSWERED = "answered"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"


class Kind(Enum):
    """What went wrong: (HTTP status, gRPC status number, outcome it is counted under)."""

    INVALID = (400, 3, Outcome.FAILED)
    MALFORMED = (400, 3, Outcome.FAILED)
    UNDECODABLE = (422, 3, Outcome.FAILED)
    UNSUPPORTED_MEDIA = (415, 3, Outcome.FAILED)
    PRECONDITION = (400, 9, Outcome.FAILED)
    NOT_FOUND = (404, 5, Outcome.FAILED)
    CONFLICT = (409, 9, Outcome.FAILED)
    TOO_LARGE = (413, 8, Outcome.REFUSED)
    METHOD = (405, 12, Outcome.FAILED)
    URI_TOO_LONG = (414, 8, Outcome.REFUSED)
    HEADERS_TOO_LARGE = (431, 8, Outcome.REFUSED)
    READ_TIMEOUT = (408, 4, Outcome.FAILED)
    OVERLOADED = (503, 14, Outcome.REFUSED)
    LOADING = (503, 14, Outcome.REFUSED)
    DRAINING = (503, 14, Outcome.REFUSED)
    PROGRAMMING = (503, 14, Outcome.REFUSED)
    DEVICE_LOST = (503, 14, Outcome.FAILED)
    DEVICE_MEMORY = (503, 14, Outcome.FAILED)
    DEVICE_MISSING = (503, 14, Outcome.FAILED)
    DEADLINE = (504, 4, Outcome.FAILED)
    CANCELLED = (499, 1, Outcome.CANCELLED)
    UNAUTHENTICATED = (401, 16, Outcome.REFUSED)
    FORBIDDEN = (403, 7, Outcome.REFUSED)
    UNSUPPORTED = (501, 12, Outcome.FAILED)
    INTERNAL = (500, 13, Outcome.FAILED)

    def __new__(cls, http: int, grpc: int, outcome: Outcome) -> "Kind":
        kind = object.__new__(cls)
        # Kinds may share a row, and Enum would make equal values aliases of one another.
        kind._value_ = len(cls.__members__)
        return kind

    def __init__(self, http: int, grpc: int, outcome: Outcome) -> None:
        self.http_status = http
        self.grpc_code = grpc
        self.outcome = outcome

    @property
    def reason(self) -> str:
        """The metric label and the reason given to the client, unless the error names a finer one."""
        return self.name.lower()


class ExitCode(IntEnum):
    """How the process ends."""

    OK = 0
    UNFORESEEN = 1
    USAGE = 2
    LOAD_FAILED = 3
    NOT_FOUND = 4
    CONFLICT = 5
    DEVICE_MISSING = 6

    @classmethod
    def of(cls, kind: Kind) -> "ExitCode":
        """The code for a process that ends because no model is left to serve, by the error that was decisive."""
        special = {
            Kind.NOT_FOUND: cls.NOT_FOUND,
            Kind.CONFLICT: cls.CONFLICT,
            Kind.DEVICE_MISSING: cls.DEVICE_MISSING,
            Kind.DEVICE_LOST: cls.DEVICE_MISSING,
        }
        return special.get(kind, cls.LOAD_FAILED)


class ScoringError(Exception):
    """A request, a model or a device failed in a way that somebody is to be told about.

    message: for the client; names the model, the tensor, what was wanted and what was got.
    reason: short word for metrics and clients; the kind's own when left out.
    retry_after_s: when trying again may help; becomes `Retry-After`.
    """

    def __init__(
        self, kind: Kind, message: str, *, reason: str | None = None, retry_after_s: int | None = None
    ) -> None:
        # A path or a client's word may hold what UTF-8 cannot say, and every protocol has to say the message.
        text = message if message.isascii() else message.encode("utf-8", "replace").decode("utf-8")
        super().__init__(text)
        self.kind = kind
        self.message = text
        self.reason = reason or kind.reason
        self.retry_after_s = retry_after_s

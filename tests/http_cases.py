"""Every kind of HTTP request as data: what is asked, in which bytes, and which status it gets.

The models that they ask are those of `http_service.write_models`. The tests replay the cases through both lanes on fake
transports (tests/frontends) and against a server on real sockets (tests/e2e).
"""

import base64
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from accelserve.builtin import pictures

MOST_BODY_BYTES = 100_000
JPEG = pictures()[3][0].read_bytes()
Headers = tuple[tuple[str, str], ...]
_BOUNDARY = "a-boundary"


@dataclass(frozen=True)
class Case:
    """One request. status: of its answer. hot: the short lane takes it when it comes plain."""

    name: str
    method: str
    target: str
    body: bytes = b""
    headers: Headers = ()
    status: int = 200

    @property
    def hot(self) -> bool:
        path = self.target.partition("?")[0]
        scoring = path == "/score" or path.startswith(("/v1/", "/api/v1/service/"))
        return self.method == "POST" and scoring and bool(self.body)

    def bytes(self, *extra: tuple[str, str], version: str = "1.1", host: str = "Host") -> bytes:
        """The body with its length."""
        length = (("Content-Length", str(len(self.body))),) if self.body or self.method == "POST" else ()
        return self._head((*self.headers, *extra, *length), version, host) + self.body

    def chunked(self, sizes: Sequence[int], *extra: tuple[str, str], version: str = "1.1") -> bytes:
        """The body in chunks of these sizes, the rest in a last one."""
        parts, at = [], 0
        for size in (*sizes, len(self.body)):
            if piece := self.body[at : at + size]:
                parts.append(b"%x\r\n%b\r\n" % (len(piece), piece))
            at += size
        head = self._head((*self.headers, *extra, ("Transfer-Encoding", "chunked")), version, "Host")
        return b"".join((head, *parts, b"0\r\n\r\n"))

    def _head(self, headers: Headers, version: str, host: str) -> bytes:
        first = f"{self.method} {self.target} HTTP/{version}"
        lines = [first, *(f"{name}: {value}" for name, value in ((host, "test"), *headers)), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def spelled(self, change: str) -> "Case":
        """With header names in another case: "upper", "lower" or "title"."""
        return replace(self, headers=tuple([(getattr(name, change)(), value) for name, value in self.headers]))


def _json(document: object) -> bytes:
    return json.dumps(document).encode()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(JPEG)).resize((32, 32)).save(buffer, "PNG")
    return buffer.getvalue()


def _form(*files: bytes) -> bytes:
    part = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="a.jpg"\r\n\r\n'.encode()
    return b"".join(part + data + b"\r\n" for data in files) + f"--{_BOUNDARY}--\r\n".encode()


_FORM = (("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}"),)
_OCTETS = (("Content-Type", "application/octet-stream"),)
_GZIP = (("Content-Encoding", "gzip"),)
_ROWS = {"instances": [[1.5, 2.5]]}
_PAIR = {"a": [[1]], "b": [[2, 3]]}
_IDS = (("X-Request-Id", "mine"), ("x-ms-client-request-id", "c"), ("X-MS-Request-ID", "m"))
_DOUBLE = "/v1/models/double:predict"
_SCORE_DOUBLE = "/score?model=double"


def predict(name: str, target: str, document: object, status: int = 200, headers: Headers = ()) -> Case:
    body = document if isinstance(document, bytes) else _json(document)
    return Case(f"predict: {name}", "POST", target, body, headers, status)


def score(name: str, target: str, body: bytes, status: int = 200, headers: Headers = ()) -> Case:
    return Case(f"score: {name}", "POST", target, body, headers, status)


_PREDICT = (
    predict("a row", _DOUBLE, _ROWS),
    predict("rows of names", _DOUBLE, {"instances": [{"x": [1, 2]}, {"x": [3, 4]}]}),
    predict("columns", _DOUBLE, {"inputs": {"x": [[1, 2], [3, 4]]}}),
    predict("the only column without its name", _DOUBLE, {"inputs": [[1, 2]]}),
    predict("more rows than a batch has", _DOUBLE, {"instances": [[n, -n] for n in range(70)]}),
    predict("no rows", _DOUBLE, {"inputs": {"x": []}}, 400),
    predict("several outputs in rows", "/v1/models/pair:predict", {"instances": [{"a": [1], "b": [2, 3]}]}),
    predict("several outputs in columns", "/v1/models/pair:predict", {"inputs": _PAIR}),
    predict("one of several outputs", "/v1/models/pair:predict", {"inputs": _PAIR, "output_filter": ["d"]}),
    predict("strings", "/v1/models/text:predict", {"instances": ["a", "\u00e9\u6f22"]}),
    predict("bytes", "/v1/models/text:predict", {"instances": [{"b64": "AP8="}]}),
    predict("bytes that are no base64", "/v1/models/text:predict", {"instances": [{"b64": "!"}]}, 400),
    predict(
        "pictures for a model of pixels",
        "/v1/models/digits:predict",
        {"instances": [{"b64": base64.b64encode(JPEG).decode()}] * 2},
    ),
    predict(
        "half a picture for a model of pixels",
        "/v1/models/digits:predict",
        {"instances": [{"b64": base64.b64encode(JPEG[:900]).decode()}]},
        422,
    ),
    predict("a version", "/v1/models/many/versions/2:predict", _ROWS),
    predict("the latest version", "/v1/models/many:predict", _ROWS),
    predict("a version that is not there", "/v1/models/many/versions/7:predict", _ROWS, 404),
    predict("a version of too many digits", f"/v1/models/many/versions/{'9' * 40}:predict", _ROWS, 400),
    predict("a label", "/v1/models/many/labels/stable:predict", _ROWS, 400),
    predict("a path in another case", "/V1/MODELS/double:PREDICT", _ROWS),
    predict("a signature", _DOUBLE, {"signature_name": "serving_default", **_ROWS}),
    predict("a signature that is not there", _DOUBLE, {"signature_name": "other", **_ROWS}, 400),
    predict("ids of the client", _DOUBLE, _ROWS, 200, _IDS),
    predict("an id that is not fit for headers", _DOUBLE, _ROWS, 200, (("X-Request-Id", "a b\xff"),)),
    predict("a priority", _DOUBLE, _ROWS, 200, (("X-Accelserve-Priority", "HIGH"),)),
    predict("a priority that is none", _DOUBLE, _ROWS, 400, (("X-Accelserve-Priority", "urgent"),)),
    predict("a deadline", _DOUBLE, _ROWS, 200, (("X-Accelserve-Timeout-Ms", "60000"),)),
    predict("a deadline that is none", _DOUBLE, _ROWS, 400, (("X-Accelserve-Timeout-Ms", "soon"),)),
    predict("a deadline that passes", "/v1/models/slow:predict", _ROWS, 504, (("X-Accelserve-Timeout-Ms", "1"),)),
    predict("gzip", _DOUBLE, gzip.compress(_json(_ROWS), mtime=0), 200, _GZIP),
    predict("gzip that is none", _DOUBLE, _ROWS, 400, _GZIP),
    predict("gzip of too much", _DOUBLE, gzip.compress(bytes(MOST_BODY_BYTES + 1), mtime=0), 413, _GZIP),
    predict("another coding", _DOUBLE, _ROWS, 415, (("Content-Encoding", "br"),)),
    predict("no JSON", _DOUBLE, b"{", 400),
    predict("no object", _DOUBLE, [1], 400),
    predict("neither rows nor columns", _DOUBLE, {}, 400),
    predict("another shape", _DOUBLE, {"instances": [[1, 2, 3]]}, 400),
    predict("another name", _DOUBLE, {"inputs": {"z": [[1, 2]]}}, 400),
    predict("text for numbers", _DOUBLE, {"instances": [["a", "b"]]}, 400),
    predict("a model that is not there", "/v1/models/nope:predict", _ROWS, 404),
    predict("a model that did not load", "/v1/models/broken:predict", _ROWS, 404),
    predict("a model that fails", "/v1/models/picky:predict", {"instances": [[666, 0]]}, 400),
    predict("rows of which one fails", "/v1/models/picky:predict", {"instances": [[1, 0], [13, 0]]}, 400),
    predict("a model that breaks", "/v1/models/fragile:predict", _ROWS, 500),
    predict("classify", "/v1/models/double:classify", _ROWS, 501),
    predict("regress", "/v1/models/double:regress", _ROWS, 501),
    predict("an unknown verb", "/v1/models/double:explain", _ROWS, 400),
    predict("a query", f"{_DOUBLE}?a=b", _ROWS),
    predict("a name with an escape", "/v1/models/d%6Fuble:predict", _ROWS),
    predict("a name with an escaped slash", "/v1/models/dou%2Fble:predict", _ROWS, 400),
    predict("too large", _DOUBLE, bytes(MOST_BODY_BYTES + 1), 413),
    predict("just not too large", _DOUBLE, _json(_ROWS).ljust(MOST_BODY_BYTES)),
    predict("an empty body", _DOUBLE, b"", 400),
)

_SCORE = (
    score("JPEG", "/score", JPEG),
    score("JPEG with a type", "/score", JPEG, 200, (("Content-Type", "image/jpeg"),)),
    score("JPEG, the best", "/score?top=2", JPEG),
    score("a top that is none", "/score?top=none", JPEG, 400),
    score("a cut JPEG", "/score", JPEG[:600], 422),
    score("JPEG in gzip", "/score", gzip.compress(JPEG, mtime=0), 200, _GZIP),
    score("JPEG in a form", "/score", _form(JPEG), 200, _FORM),
    score("two files in a form", "/score", _form(JPEG, JPEG), 400, _FORM),
    score("a form that is none", "/score", b"neither", 400, _FORM),
    score("PNG", "/score", _png()),
    score("neither picture nor tensor", "/score", b"neither", 415),
    score("empty", "/score", b"", 400),
    score("rows", _SCORE_DOUBLE, _json(_ROWS)),
    score("a bare array", _SCORE_DOUBLE, b"[[1, 2], [3, 4]]"),
    score("data", _SCORE_DOUBLE, _json({"data": [[1, 2]]})),
    score("columns of several inputs", "/score?model=pair", _json({"inputs": _PAIR})),
    score("JSON after a byte order mark", _SCORE_DOUBLE, b"\xef\xbb\xbf[[1, 2]]"),
    score("npy", _SCORE_DOUBLE, _npy(np.float32([[1, 2], [3, 4]]))),
    score("npy of a row", _SCORE_DOUBLE, _npy(np.float32([1, 2]))),
    score("npy of another shape", _SCORE_DOUBLE, _npy(np.float32([[1, 2, 3]])), 400),
    score("raw", _SCORE_DOUBLE, np.float32([[1, 2]]).tobytes(), 200, _OCTETS),
    score("raw of another size", _SCORE_DOUBLE, b"12345", 400, _OCTETS),
    score("a string", "/score?model=text", b"\x00\xff any bytes"),
    score("a picture for a model of numbers", _SCORE_DOUBLE, JPEG, 415),
    score("a service", "/api/v1/service/double/score", b"[[1, 2]]"),
    score("a service with JPEG", "/api/v1/service/digits/score?top=1", JPEG),
    score("a service that is not there", "/api/v1/service/nope/score", b"[[1, 2]]", 404),
    score("a service without a name", "/api/v1/service//score", b"[[1, 2]]", 404),
    score("a service with a longer name", "/api/v1/service/a/b/score", b"[[1, 2]]", 404),
    score("a service with a slash behind", "/api/v1/service/double/score/", b"[[1, 2]]", 404),
    score("a model that is not there", "/score?model=nope", b"[[1, 2]]", 404),
    score("two models", "/score?model=nope&model=double", b"[[1, 2]]"),
    score("a model's name with an escape", "/score?model=d%6Fuble", b"[[1, 2]]"),
    score("a priority that is none", "/score", JPEG, 400, (("X-Accelserve-Priority", "urgent"),)),
    score("a deadline that passes", "/score?model=slow", b"[[1, 2]]", 504, (("X-Accelserve-Timeout-Ms", "1"),)),
    score("another coding", "/score", JPEG, 415, (("Content-Encoding", "br"),)),
    score("a slash behind", "/score/", JPEG, 404),
    score("two slashes before", "//score", JPEG, 404),
    score("another case", "/SCORE", JPEG, 404),
    score("a model that breaks", "/score?model=fragile", b"[[1, 2]]", 500),
)

_OTHER = (
    Case("GET on /score", "GET", "/score", status=405),
    Case("HEAD on /score", "HEAD", "/score", status=405),
    Case("OPTIONS on /score", "OPTIONS", "/score", status=405),
    Case("PUT on /score", "PUT", "/score", JPEG, status=405),
    Case("TRACE on a service", "TRACE", "/api/v1/service/digits/score", status=405),
    Case("DELETE on a service", "DELETE", "/api/v1/service/digits/score", status=405),
    Case("GET on predict", "GET", _DOUBLE, status=400),
    Case("HEAD on predict", "HEAD", _DOUBLE, status=400),
    Case("OPTIONS on predict", "OPTIONS", _DOUBLE, status=400),
    Case("models", "GET", "/v1/models"),
    Case("a model's status", "GET", "/v1/models/many"),
    Case("a version's status", "GET", "/v1/models/many/versions/2"),
    Case("a model's metadata", "GET", "/v1/models/pair/metadata"),
    Case("status of no model", "GET", "/v1/models/nope", status=404),
    Case("POST on status", "POST", "/v1/models/double", b"{}", status=400),
    Case("anything under v1", "PUT", "/v1/anything", b"{}", status=400),
    Case("alive", "GET", "/healthz"),
    Case("alive, headers alone", "HEAD", "/healthz", status=405),
    Case("POST on alive", "POST", "/healthz", b"x", status=405),
    Case("ready", "GET", "/readyz"),
    Case("ready, a model", "GET", "/readyz/double"),
    Case("ready, no such model", "GET", "/readyz/nope", status=404),
    Case("no such path", "GET", "/nowhere", status=404),
    Case("POST on no such path", "POST", "/nowhere", b"12345", status=404),
    Case("the root", "GET", "/", status=404),
    Case("the server itself", "OPTIONS", "*", status=404),
    Case("documentation", "GET", "/docs"),
    Case("Swagger", "GET", "/swagger.json"),
)

CASES = (*_PREDICT, *_SCORE, *_OTHER)

"""Requests that show how azureml-inference-server-http answers, as data; and a client that asks any server them.

The scripts have the shapes of the documents' own: JSON text, raw HTTP, a schema. The original's answers are recorded in
golden/azure_probes.json (golden/record_azure_probes.py); ours are tested against them (e2e/test_azure_probes.py), and
docs/azure_probe_table.md is made of both.
"""

import gzip
import json
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

PATIENCE_S = 30.0
JPEG = b"\xff\xd8\xff\xe0" + bytes(range(256)) * 4
LONG_ID = "i" * 101
ORIGINS = "https://a.example, https://b.example"

SCRIPTS = {
    "json": """
import json
import sys
import time

from azureml.contrib.services.aml_response import AMLResponse


def init():
    pass


def run(raw_data):
    if "raise" in raw_data:
        raise ValueError("a secret of the script")
    if "exit" in raw_data:
        sys.exit(1)
    if "sleep" in raw_data:
        time.sleep(20)
    if "nan" in raw_data:
        return [float("nan")]
    if "bytes" in raw_data:
        return b"bytes"
    if "object" in raw_data:
        return object()
    if "tuple" in raw_data:
        return 1, 503
    if "none" in raw_data:
        return None
    if "text" in raw_data:
        return json.dumps({"a": 1})
    if "unavailable" in raw_data:
        return AMLResponse("busy", 503)
    if "headers" in raw_data:
        return AMLResponse({"a": 1}, 200, {"x-many": "1, 2"}, json_str=True)
    return json.loads(raw_data) if raw_data else "it is empty"
""",
    "raw": """
from azureml.contrib.services.aml_request import rawhttp
from azureml.contrib.services.aml_response import AMLResponse


def init():
    pass


@rawhttp
def run(request):
    if request.method == "GET":
        return AMLResponse("GET is not supported", 405)
    if request.method == "POST":
        body = request.get_data(False)
        if body == b"raise":
            raise ValueError("a secret of the script")
        if body == b"dict":
            return {"a": 1}
        if body == b"str":
            return "text"
        return AMLResponse(str(len(body)), 200)
    return AMLResponse("bad request", 500)
""",
    "schema": """
import numpy as np
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema, output_schema


def init():
    pass


@input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
@input_schema("scale", StandardPythonParameterType(2.0))
@output_schema(NumpyParameterType(np.array([2.0])))
def run(data, scale=10.0):
    return (data.sum(axis=1) * scale).tolist()
""",
}
Headers = tuple[tuple[str, str], ...]
JSON = (("Content-Type", "application/json"),)
FORM = (("Content-Type", "application/x-www-form-urlencoded"),)


@dataclass(frozen=True)
class Probe:
    """One request to a server with one script. environ: what the server was started with."""

    script: str
    name: str
    method: str
    target: str
    body: bytes | None = None
    headers: Headers = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False

    @property
    def key(self) -> str:
        return f"{self.script}: {self.name}"

    def bytes(self) -> bytes:
        """As sent, on a connection of its own."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: test", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        body = self.body
        if body is not None and self.chunked:
            lines.append("Transfer-Encoding: chunked")
            half = len(body) // 2
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:half], body[half:])) + b"0\r\n\r\n"
        elif body is not None:
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join((*lines, "", "")).encode("latin-1") + (body or b"")


def _post(script: str, name: str, body: bytes, headers: Headers = (), **more: object) -> Probe:
    return Probe(script, name, "POST", "/score", body, headers, **more)


def _any(script: str) -> Iterator[Probe]:
    """Of every script."""
    yield Probe(script, "GET /", "GET", "/")
    yield Probe(script, "HEAD /", "HEAD", "/")
    yield Probe(script, "POST /", "POST", "/", b"")
    yield Probe(script, "OPTIONS /", "OPTIONS", "/")
    yield Probe(script, "PUT /score", "PUT", "/score", b"x")
    yield Probe(script, "DELETE /score", "DELETE", "/score")
    yield Probe(script, "OPTIONS /score", "OPTIONS", "/score")
    yield Probe(script, "HEAD /score", "HEAD", "/score")
    yield Probe(script, "GET /score/", "GET", "/score/")
    yield Probe(script, "an unknown path", "GET", "/nothing")
    yield Probe(script, "GET /swagger.json", "GET", "/swagger.json")
    yield Probe(script, "swagger version 3", "GET", "/swagger.json?version=3")
    yield Probe(script, "swagger version 3.1", "GET", "/swagger.json?version=3.1")
    yield Probe(script, "swagger version 9", "GET", "/swagger.json?version=9")


def _ids() -> Iterator[Probe]:
    for name, sent in {
        "no id": {},
        "x-request-id": {"x-request-id": "a"},
        "x-ms-request-id": {"x-ms-request-id": "b"},
        "x-ms-client-request-id": {"x-ms-client-request-id": "c"},
        "both Microsoft's ids": {"x-ms-request-id": "b", "x-ms-client-request-id": "c"},
        "all ids and TraceId": {
            "x-request-id": "a",
            "x-ms-request-id": "b",
            "x-ms-client-request-id": "c",
            "TraceId": "t",
        },
        "x-request-id of 101 characters": {"x-request-id": LONG_ID},
        "x-ms-request-id of 101 characters": {"x-ms-request-id": LONG_ID},
        "x-ms-client-request-id of 101 characters": {"x-ms-client-request-id": LONG_ID},
    }.items():
        yield _post("json", f"ids: {name}", b"[1]", (*JSON, *sent.items()))


def _json() -> Iterator[Probe]:
    yield Probe("json", "GET /score with a query", "GET", "/score?a=1&b=[1,2]&c=x&c=y")
    yield Probe("json", "GET /score", "GET", "/score")
    yield _post("json", "POST nothing", b"")
    yield _post("json", "POST JSON", b'{"data": [1, 2]}', JSON)
    yield _post("json", "POST JSON without a type", b'{"data": [1, 2]}')
    yield _post("json", "POST JSON as a form (curl -d)", b'{"data": [1, 2]}', FORM)
    yield _post("json", "POST broken JSON as a form", b"{bad", FORM)
    yield _post("json", "POST broken JSON", b"{bad", JSON)
    yield _post("json", "POST a JPEG", JPEG, (("Content-Type", "image/jpeg"),))
    yield _post(
        "json", "POST JSON in gzip", gzip.compress(b'{"data": [1, 2]}', mtime=0), (*JSON, ("Content-Encoding", "gzip"))
    )
    yield _post("json", "an exception in run()", b'"raise"', JSON)
    yield _post("json", "SystemExit in run()", b'"exit"', JSON)
    yield _post("json", "NaN returned", b'"nan"', JSON)
    yield _post("json", "bytes returned", b'"bytes"', JSON)
    yield _post("json", "an object returned", b'"object"', JSON)
    yield _post("json", "a tuple returned", b'"tuple"', JSON)
    yield _post("json", "None returned", b'"none"', JSON)
    yield _post("json", "a JSON text returned", b'"text"', JSON)
    yield _post("json", "AMLResponse 503", b'"unavailable"', JSON)
    yield _post("json", "AMLResponse with headers", b'"headers"', JSON)
    yield _post("json", "run() over SCORING_TIMEOUT_MS", b'"sleep"', JSON, environ={"SCORING_TIMEOUT_MS": "1500"})
    yield _post("json", "run() over WORKER_TIMEOUT", b'"sleep"', JSON, environ={"WORKER_TIMEOUT": "3"})


def _raw() -> Iterator[Probe]:
    jpeg = (("Content-Type", "image/jpeg"),)
    form = (("Content-Type", "multipart/form-data; boundary=bb"),)
    parts = b'--bb\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + JPEG + b"\r\n--bb--\r\n"
    yield Probe("raw", "GET /score", "GET", "/score")
    yield _post("raw", "POST nothing", b"")
    yield _post("raw", "POST a JPEG", JPEG, jpeg)
    yield _post("raw", "POST a JPEG without a type", JPEG)
    yield _post("raw", "POST a JPEG as a form", JPEG, FORM)
    yield _post("raw", "POST a JPEG in chunks", JPEG, jpeg, chunked=True)
    yield _post("raw", "POST a JPEG with Expect: 100-continue", JPEG, (*jpeg, ("Expect", "100-continue")))
    yield _post("raw", "POST a JPEG in a multipart form", parts, form)
    yield _post("raw", "POST a JPEG in gzip", gzip.compress(JPEG, mtime=0), (*jpeg, ("Content-Encoding", "gzip")))
    yield _post("raw", "POST 50 MB", bytes(50 * 2**20), jpeg)
    yield _post("raw", "an exception in run()", b"raise")
    yield _post("raw", "a dict returned", b"dict")
    yield _post("raw", "a str returned", b"str")


def _cors() -> Iterator[Probe]:
    environ = {"AML_CORS_ORIGINS": ORIGINS}
    asks = (("Origin", "https://a.example"), ("Access-Control-Request-Method", "POST"))
    for script in ("json", "raw"):
        yield Probe(script, "CORS: no Origin", "GET", "/", environ=environ)
        yield Probe(script, "CORS: an allowed Origin", "GET", "/", headers=asks[:1], environ=environ)
        yield Probe(
            script, "CORS: another Origin", "GET", "/", headers=(("Origin", "https://c.example"),), environ=environ
        )
        headers = (*asks, ("Access-Control-Request-Headers", "content-type"))
        yield Probe(script, "CORS: preflight", "OPTIONS", "/score", headers=headers, environ=environ)


def _schema() -> Iterator[Probe]:
    yield _post("schema", "both parameters", b'{"data": [[1, 2]], "scale": 3}', JSON)
    yield _post("schema", "a default", b'{"data": [[1, 2]]}', JSON)
    yield _post("schema", "a missing parameter", b'{"scale": 3}', JSON)
    yield _post("schema", "text/plain", b'{"data": [[1, 2]]}', (("Content-Type", "text/plain"),))
    yield _post("schema", "broken JSON", b"{bad", JSON)
    yield _post("schema", "nothing", b"", JSON)
    yield _post("schema", "a list", b"[1]", JSON)
    yield _post("schema", "a value of another type", b'{"data": "x"}', JSON)
    yield Probe("schema", "GET /score with a query", "GET", "/score?data=[[1,2]]")


PROBES: tuple[Probe, ...] = (
    *_any("json"),
    *_json(),
    *_ids(),
    *_any("raw"),
    *_raw(),
    *_schema(),
    *_cors(),
)


@dataclass(frozen=True)
class Outcome:
    """What is compared of an answer.

    headers: those that a client may look at, by lower-case name; ids that a server made are "made", and what differs
    from run to run is "there". body: text; of a swagger document all but its descriptions and examples; of a long
    one its length; JSON is spaced alike.
    """

    status: int
    type: str
    body: str
    headers: Mapping[str, str]


_SEEN = frozenset(
    {
        *("allow", "traceid", "vary", "x-ms-run-function-failed", "x-many"),
        *("x-request-id", "x-ms-request-id", "x-ms-client-request-id", "x-ms-server-version", "x-ms-run-fn-exec-ms"),
        *("access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers"),
    }
)
_MADE_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_THERE = frozenset({"x-ms-server-version", "x-ms-run-fn-exec-ms"})


def ask(port: int, probe: Probe) -> Outcome:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        client.sendall(probe.bytes())
        data = b""
        while part := client.recv(2**16):
            data += part
    return outcome_of(data, probe)


def outcome_of(data: bytes, probe: Probe) -> Outcome:
    """data: all that came back on the connection."""
    head, _, body = data.partition(b"\r\n\r\n")
    if b" 100 " in head.partition(b"\r\n")[0]:
        head, _, body = body.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    headers: dict[str, str] = {}
    for name, value in pairs:
        if name in _SEEN:
            shown = "there" if name in _THERE else _MADE_ID.sub("made", value)
            if name == "allow":
                shown = ", ".join(sorted(shown.split(", ")))  # the original's order is a set's
            headers[name] = f"{headers[name]}, {shown}" if name in headers else shown
    content_type = dict(pairs).get("content-type", "")
    return Outcome(int(first.split()[1]), content_type, _body(body, content_type, probe), dict(sorted(headers.items())))


def _body(body: bytes, content_type: str, probe: Probe) -> str:
    if probe.target.startswith("/swagger") and body.startswith(b"{") and b"paths" in body:
        document = json.loads(body)
        version = f"swagger {document['swagger']}" if "swagger" in document else f"openapi {document['openapi']}"
        return f"{version}: {json.dumps(_without_words(document), sort_keys=True)}"
    if content_type == "application/json" and body:
        return json.dumps(json.loads(body))  # spaces between its parts say nothing
    text = body.decode("utf-8", "backslashreplace")
    return text if len(text) < 400 else f"{len(body)} bytes"


def _without_words(part: object) -> object:
    """A document as programs read it: ours describes in words of our own."""
    if isinstance(part, list):
        return [_without_words(item) for item in part]
    if isinstance(part, dict):
        return {k: _without_words(v) for k, v in part.items() if k not in ("description", "example", "examples")}
    return part

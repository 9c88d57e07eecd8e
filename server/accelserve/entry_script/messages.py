"""What the server and the worker of an entry script tell each other: frozen values.

What is made for every request is a NamedTuple, as in `accelserve.messages`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Headers = tuple[tuple[str, str], ...]
NanPolicy = Literal["null", "NaN", "refuse"]
Shape = Literal["text", "rawhttp", "schema"]


class ScriptRequest(NamedTuple):
    """A request as it came, its body complete.

    path: without the query. query_string: raw, without "?". headers: in order, names in lower case, values as latin-1.
    """

    method: str
    path: str
    query_string: bytes
    headers: Headers
    body: bytes


class ScriptResponse(NamedTuple):
    """What the script answered, or what is answered in its place.

    headers: beyond the content type. run_ns: time in run(), None if run() did not return.
    failed: run() is to blame for it (`x-ms-run-function-failed`).
    report: what the script raised, with its traceback; for the server's log, and for no client.
    """

    status: int
    body: bytes
    content_type: str
    headers: Headers = ()
    run_ns: int | None = None
    failed: bool = False
    report: str = ""


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """Everything that a worker is told.

    script, app_root, model_dir (AZUREML_MODEL_DIR, "" for none): paths. models: name -> path, for `get_model_path`.
    source_directory: one more folder to import from, "" for none. working_directory: "" for the server's own.
    service, service_version, path_prefix: for the swagger documents.
    score_address: what gRPC's clients connect to, "" for none; score_key: the key they show, "" for none.
    timeout_ms: for one run(). nan: what becomes of a number that JSON does not have.
    """

    script: str
    app_root: str
    model_dir: str = ""
    source_directory: str = ""
    working_directory: str = ""
    models: Mapping[str, str] = field(default_factory=dict)
    legacy_tensorflow: bool = False
    strict_compat: bool = False
    service: str = "ML service"
    service_version: str = "1.0"
    path_prefix: str = ""
    score_address: str = ""
    score_key: str = field(default="", repr=False)
    timeout_ms: int = 60_000
    nan: NanPolicy = "null"


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """Told once, after init(): what the script is.

    shape: "text" is run(raw_data). concurrent: run() is `async`, so the worker takes several requests at a time.
    swagger: version "2", "3", "3.1" -> the document's JSON text.
    """

    shape: Shape
    concurrent: bool
    swagger: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class WorkerFailed:
    """Told instead: the script cannot be loaded, lacks init() or run(), or init() failed. For the log only."""

    message: str
    traceback: str = ""
